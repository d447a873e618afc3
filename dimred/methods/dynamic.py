"""Dynamic sparse training: as many weights as in the end, from the start, but not always the same
ones.

A weight that joins starts at zero, without momentum (but for SNFS). A layer that is full has
nowhere to grow and is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from dimred.allocate import regrown
from dimred.errors import require
from dimred.net import Net
from dimred.rewiring import (
    RandomStart,
    drop_and_regrow,
    drop_counts,
    gradient_magnitude,
    require_fractions,
)
from dimred.schedules import Decay, cosine, decayed, require_period
from dimred.scores import Scores, magnitude
from dimred.select import drop, grow, grow_random, topk
from dimred.train import Train


@dataclass(frozen=True)
class SET(RandomStart):
    """Every so often, replace the weights closest to zero by random new ones that start at zero.

        drop the fraction zeta of the smallest positive and the fraction zeta of the largest
        negative weights of a layer

    The paper does so after each of 1000 epochs. The last layer is sparse like the others, where the
    paper keeps it dense (exclude=[...] does).

    Trains: d weights, not always the same; stores: their positions; needs: nothing.

    Mocanu et al., Nature Communications 2018 (arXiv:1707.04780).
    """

    every: int | float  # steps, or a fraction of training
    fraction: float  # zeta

    def __post_init__(self) -> None:
        require_period(self.every)
        require_fractions(fraction=self.fraction)

    def run(self, net: Net, train: Train) -> None:
        self.keep_random(net)
        due = train.every(self.every)
        for t in train.steps():
            if due(t):
                counts = drop_counts(net, self.fraction)
                drop_and_regrow(net, drop(net, rank_by_sign(net), counts), counts)


def rank_by_sign(net: Net) -> Scores:
    """Where |psi| ranks among the trained weights of its layer with the same sign, in (0, 1]:
    dropping the lowest of this score drops the same fraction of the positive and of the negative
    weights."""
    return {name: _ranks(w.scatter(w.psi.detach())) for name, w in net.weights.items()}


def _ranks(theta: Tensor) -> Tensor:
    ranks = torch.zeros_like(theta)
    for positions in ((theta > 0).nonzero().view(-1), (theta < 0).nonzero().view(-1)):
        order = theta[positions].abs().argsort(stable=True)
        rank = torch.arange(1, len(order) + 1, device=theta.device, dtype=theta.dtype)
        ranks[positions[order]] = rank / max(1, len(order))
    return ranks


@dataclass(frozen=True)
class RigL(RandomStart):
    """Every so often, replace the smallest weights by those whose gradient is largest.

        fraction alpha/2 (1 + cos(pi t / T_end)) of each layer, at t = every, 2 every, ... < T_end,
        which do not train

    A dropped weight whose gradient is among the largest returns with its value, as in the official
    code. The fraction may also stay or fall as alpha (1 - t / T_end)^k: linear is k = 1,
    inverse_power k = 3. Gradients may be summed over the last `batches` steps up to the one that
    rewires, against the noise of small batches.

    Trains: d weights, not always the same; stores: their positions; needs: dense gradients in the
    steps that rewire (and in those whose gradients are summed).

    Evci, Gale, Menick, Castro, Elsen, ICML 2020 (arXiv:1911.11134), alg. 1.
    """

    every: int | float  # steps, or a fraction of training
    fraction: float  # alpha
    until: float  # T_end, as a fraction of training
    decay: Decay = field(default="cosine", kw_only=True)  # of the fraction
    batches: int = field(default=1, kw_only=True)  # whose gradients are summed

    def __post_init__(self) -> None:
        require_period(self.every)
        require_fractions(fraction=self.fraction, until=self.until)
        require(self.batches > 0, "method.batches", self.batches, "1 or more")

    def run(self, net: Net, train: Train) -> None:
        self.keep_random(net)
        due, period = train.every(self.every, self.until), train.period(self.every)
        require(
            self.batches <= period,
            "method.batches",
            self.batches,
            f"at most method.every, {period} steps here",
        )

        def summed(t: int) -> bool:
            """Whether the gradient of step t is one of those that decide."""
            return any(due(later) for later in range(t, t + self.batches))

        for t in train.steps(dense_grad=summed):
            if summed(t) and net.dim < net.total:
                self.add_gradients(net)
            if due(t) and net.dim < net.total:
                fraction = decayed(self.fraction, self.decay, t / (self.until * len(train)))
                self.swap(net, drop_counts(net, fraction))
                net.zero_grad()

    def add_gradients(self, net: Net) -> None:
        for name, grad in net.grads().items():
            so_far = net.notes.get(f"gradient/{name}")
            net.notes[f"gradient/{name}"] = grad.clone() if so_far is None else so_far + grad

    def swap(self, net: Net, counts: Mapping[str, int]) -> None:
        gradient = {name: net.notes.pop(f"gradient/{name}").abs() for name in net.weights}
        net.keep(grow(drop(net, magnitude(net), counts), gradient, counts))


@dataclass(frozen=True)
class ITOP(RandomStart):
    """Rewire seldom but much, so that in the end training has seen many weights: in-time
    over-parameterisation.

        a fraction of each layer, floor + (fraction - floor)/2 (1 + cos(pi t / T)), at t = every, 2
        every, ... < T

    Drops the smallest weights and grows those whose gradient is largest (RigL) or random ones
    (SET). Every result's `explored` is R_s, the share of all weights that were trained at some
    time; for random growth of a constant fraction p of what is free it is 1 - (1 - d)(1 -
    p)^updates. A step that rewires trains, as in the official code.

    Trains: d weights, not always the same; stores: their positions; needs: dense gradients in the
    steps that rewire, where it grows by gradients.

    Liu, Yin, Mocanu, Pechenizkiy, ICML 2021 (arXiv:2102.02887).
    """

    every: int | float  # steps, or a fraction of training
    fraction: float  # at the start of the cosine
    floor: float  # at its end
    grow: Literal["gradient", "random"]

    def __post_init__(self) -> None:
        require_period(self.every)
        require_fractions(fraction=self.fraction, floor=self.floor)

    def run(self, net: Net, train: Train) -> None:
        self.keep_random(net)
        due = train.every(self.every)
        for t in train.steps(dense_grad=due if self.grow == "gradient" else None):
            if due(t):
                fraction = cosine(self.fraction, self.floor, t / len(train))
                counts = drop_counts(net, fraction, math.ceil)
                kept = drop(net, magnitude(net), counts)
                if self.grow == "gradient":
                    net.keep(grow(kept, gradient_magnitude(net), counts))
                else:
                    net.keep(grow_random(net, kept, counts))


@dataclass(frozen=True)
class SNFS(RandomStart):
    """Every so often, replace the smallest weights by those with the largest momentum, most in
    layers where it is
    large: sparse networks from scratch, or sparse momentum.

        drop a fraction as in ITOP;  layer l grows a share of them in proportion to the mean |m| of its trained weights

    m <- mu m + dL/dtheta is kept for every weight, trained or not: the momentum of SGD but for
    weight decay, and the same whatever the optimiser. So each step costs a dense gradient. With SGD
    a newcomer starts with the momentum that chose it, as in the official code. The paper rewires
    after each of 100 (MNIST) or 250 (CIFAR) epochs. Totals are exact; the official code's
    corrections of layers that are nearly dense or full are replaced by handing on what does not
    fit.

    Trains: d weights, not always the same; stores: their positions; needs: dense gradients and a
    dense momentum in every step.

    Dettmers, Zettlemoyer, 2019 (arXiv:1907.04840).
    """

    every: int | float  # steps, or a fraction of training
    fraction: float  # at the start of the cosine
    floor: float  # at its end
    mu: float

    def __post_init__(self) -> None:
        require_period(self.every)
        require_fractions(fraction=self.fraction, floor=self.floor)
        require(0 <= self.mu < 1, "method.mu", self.mu, "a number in [0, 1)")

    def run(self, net: Net, train: Train) -> None:
        self.keep_random(net)
        due = train.every(self.every)
        for t in train.steps(dense_grad=lambda t: True):
            if due(t):
                self.rewire(net, cosine(self.fraction, self.floor, t / len(train)))
            for name, grad in net.grads().items():
                momentum = net.notes.setdefault(f"momentum/{name}", torch.zeros_like(grad))
                momentum.mul_(self.mu).add_(grad)

    def rewire(self, net: Net, fraction: float) -> None:
        """By the momentum as the last step left it; in this step newcomers train like the
        others."""
        counts = drop_counts(net, fraction, math.ceil)
        before = {name: w.trained() for name, w in net.weights.items()}
        left = {name: net.weights[name].dim - count for name, count in counts.items()}
        momentum = {name: net.notes[f"momentum/{name}"] for name in net.weights}
        size, grads = {name: each.abs() for name, each in momentum.items()}, net.grads()
        more = regrown(net, left, momentum_shares(net, size))
        net.keep(grow(drop(net, magnitude(net), counts), size, more))
        for name, w in net.weights.items():
            joined = w.gather(~before[name])
            w.psi.grad = w.gather(grads[name].view(-1))
            if "momentum_buffer" in (memory := net.memory_of(w.psi)):
                memory["momentum_buffer"][joined] = w.gather(momentum[name].view(-1))[joined]


def momentum_shares(net: Net, size: Scores) -> dict[str, float]:
    """Each layer's share of the sum of the layers' mean size of momentum, over trained weights."""
    means = {
        name: float(w.gather(size[name].view(-1)).mean()) if w.dim else 0.0
        for name, w in net.weights.items()
    }
    total = sum(means.values()) or 1.0
    return {name: mean / total for name, mean in means.items()}


@dataclass(frozen=True)
class DSR(RandomStart):
    """Every so often, drop all weights below one threshold and grow as many random ones, most where
    most are left.

        drop |theta| < H;  H <- H / 2 if that is more than 1.1 of the target, 2 H if less than 0.9 of it

    The target is a fraction of the trained weights (the paper gives numbers: 600 for LeNet-300-100,
    20000 for WRN-28-2). Every layer keeps its largest weight. New ones are drawn among all zeros;
    the official code leaves out those just dropped. The result's measure `threshold` is the last H.

    Trains: d weights, not always the same; stores: their positions; needs: nothing.

    Mostafa, Wang, ICML 2019 (arXiv:1902.05967).
    """

    every: int | float  # steps, or a fraction of training, at first
    slower: tuple[float, ...]  # moments at which `every` doubles, as fractions of training
    until: float  # the last time, as a fraction of training
    target: float  # to drop each time, as a fraction of the trained weights
    threshold: float  # H, at first

    def __post_init__(self) -> None:
        require_period(self.every)
        require(self.threshold > 0, "method.threshold", self.threshold, "a number above 0")
        require_fractions(until=self.until, target=self.target)
        require(
            all(0 <= m <= 1 for m in self.slower),
            "method.slower",
            self.slower,
            "fractions of training in [0, 1]",
        )

    def run(self, net: Net, train: Train) -> None:
        self.keep_random(net)
        net.notes["threshold"] = torch.tensor(self.threshold, dtype=torch.float64)
        due, period = train.every(self.every, self.until), train.period(self.every)
        for t in train.steps():
            slower = 2 ** sum(t >= moment * len(train) for moment in self.slower)
            if due(t) and t % (period * slower) == 0 and net.dim < net.total:
                threshold = net.notes["threshold"]
                counts = below(net, float(threshold))
                left = {name: net.weights[name].dim - count for name, count in counts.items()}
                share = sum(counts.values()) / (self.target * net.dim)
                net.notes["threshold"] = (
                    threshold / 2 if share > 1.1 else threshold * 2 if share < 0.9 else threshold
                )
                more = regrown(net, left, left)
                drop_and_regrow(net, drop(net, magnitude(net), counts), more)


def below(net: Net, threshold: float) -> dict[str, int]:
    """How many trained weights of each layer are smaller than the threshold; all but one, at
    most."""
    return {
        name: max(0, min(int((w.psi.abs() < threshold).sum()), w.dim - 1))
        for name, w in net.weights.items()
    }


@dataclass(frozen=True)
class MEST(RandomStart):
    """Every so often, drop the weights that matter least by size and gradient, and grow random
    ones; ever fewer.

        score = |theta| + lambda |dL/dtheta|;  density d: prune to (1 - f) d, grow to d (elastic mutation)
                                               or prune to d, grow to (1 + f) d and train these
                                               (soft memory bound)

    f falls in steps and is 0 in the end, so that d weights are left. No dense gradient is needed.
    The paper's bounds at sparsity 0.9 are 0.92, 0.91, 0.90 (f = 0.2, 0.1) and with the soft bound
    0.85, 0.875, 0.90 (f = 0.5, 0.25), with an update every 5 of 160 epochs. lambda is from memory
    (the official scripts leave it at 0).

    Trains: d weights or somewhat more or fewer, not always the same; stores: their positions;
    needs: nothing.

    Yuan et al., NeurIPS 2021 (arXiv:2110.14032).
    """

    every: int | float  # steps, or a fraction of training
    fractions: tuple[float, ...]  # f, one for each stage of training but the last
    moments: tuple[float, ...]  # at which a stage ends, as fractions of training
    soft: bool  # the soft memory bound, EM&S
    gradient: float  # lambda

    def __post_init__(self) -> None:
        require_period(self.every)
        require(
            len(self.fractions) == len(self.moments) > 0,
            "method.fractions, method.moments",
            (self.fractions, self.moments),
            "as many of one as of the other",
        )
        require(
            all(0 <= f <= 1 for f in self.fractions),
            "method.fractions",
            self.fractions,
            "fractions in [0, 1]",
        )
        require(
            all(0 <= m < 1 for m in self.moments) and sorted(self.moments) == [*self.moments],
            "method.moments",
            self.moments,
            "rising fractions of training in [0, 1)",
        )

    def bounds(self, progress: float) -> tuple[float, float]:
        """To what multiples of the density to prune, and to grow again."""
        f = (*self.fractions, 0.0)[sum(progress >= moment for moment in self.moments)]
        return (1.0, 1.0 + f) if self.soft else (1.0 - f, 1.0)

    def run(self, net: Net, train: Train) -> None:
        self.keep_random(net)
        base = {name: w.dim for name, w in net.weights.items()}
        self.mutate(net, base, 1.0, self.bounds(0.0)[1])
        due = train.every(self.every, self.moments[-1])
        last = min(math.ceil(self.moments[-1] * len(train)), len(train) - 1)
        for t in train.steps():
            if due(t) or t == last:
                self.mutate(net, base, *self.bounds(1.0 if t == last else t / len(train)))

    def mutate(self, net: Net, base: Mapping[str, int], low: float, high: float) -> None:
        """Prune to `low` times the base counts, grow to `high` times."""
        sizes = {name: net.weights[name].size for name in base}
        lows = {name: n if n == sizes[name] else round(low * n) for name, n in base.items()}
        counts = {name: max(0, net.weights[name].dim - n) for name, n in lows.items()}
        more = {name: min(sizes[name], round(high * n)) - lows[name] for name, n in base.items()}
        if any(counts.values()) or any(more.values()):
            drop_and_regrow(net, drop(net, self.scores(net), counts), more)

    def scores(self, net: Net) -> Scores:
        return {
            name: w.scatter(
                w.psi.detach().abs()
                if w.psi.grad is None
                else w.psi.detach().abs() + self.gradient * w.psi.grad.abs()
            )
            for name, w in net.weights.items()
        }


@dataclass(frozen=True)
class GraNet(RandomStart):
    """Prune the smallest weights of all layers little by little, and after each time regrow a part
    of each layer.

        density 1 - s + (s - s_0) (1 - t / t_1)^3 until t_1;  then drop and grow as ITOP does by gradients

    From s_0 = 0 it is dense-to-sparse training. Without regrowth it is GMP with one ranking over
    all layers, with s_0 = s ITOP. The allocation is that of the start; later, layers keep what
    their weights earn.

    Trains: all weights at first or as many as `start` says, in the end d; stores: their positions;
    needs: dense gradients in the steps that prune and regrow, and all that is not pruned yet.

    Liu et al., NeurIPS 2021 (arXiv:2106.10404).
    """

    start: float  # s_0, the sparsity at the start, or the final one if that is less
    end: float  # t_1, of pruning, as a fraction of training
    every: int | float  # steps, or a fraction of training
    fraction: float  # of each layer to regrow, at the start of the cosine
    floor: float  # at its end

    def __post_init__(self) -> None:
        require_period(self.every)
        require(0 <= self.start < 1, "method.start", self.start, "a sparsity in [0, 1)")
        require(0 < self.end < 1, "method.end", self.end, "a fraction of training, in (0, 1)")
        require_fractions(fraction=self.fraction, floor=self.floor)

    def run(self, net: Net, train: Train) -> None:
        start, end = min(self.start, self.sparsity), int(self.end * len(train))
        self.keep_random(net, start)
        period = train.period(self.every)

        def due(t: int) -> bool:
            # `end` is before the last step, however few there are
            return t == end or (t > 0 and t % period == 0)

        for t in train.steps(dense_grad=due):
            if due(t):
                gradient = gradient_magnitude(net)
                if t <= end:
                    left = 1 - t / end if end else 0.0
                    density = 1 - self.sparsity + (self.sparsity - start) * left**3
                    net.keep(topk(magnitude(net), round(density * net.total)))
                fraction = cosine(self.fraction, self.floor, t / len(train))
                counts = drop_counts(net, fraction, math.ceil)
                net.keep(grow(drop(net, magnitude(net), counts), gradient, counts))
