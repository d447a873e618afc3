"""Dynamic sparse training: as many weights as in the end, from the start, but not always the same ones.

A weight that joins starts at zero, without momentum. A layer that is full has nowhere to grow and is left alone.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dimred.allocate import regrown
from dimred.coordinates import Supports
from dimred.errors import require
from dimred.net import Net
from dimred.scores import magnitude, noise
from dimred.select import Allocation, Scores, cosine, drop, grow, grow_random, topk
from dimred.train import Train


@dataclass(frozen=True)
class SET:
    """After every epoch, replace the weights closest to zero by random new ones that start at zero.

        drop the fraction zeta of the smallest positive and the fraction zeta of the largest negative weights of a layer

    The last layer is sparse like the others, where the paper keeps it dense (exclude=[...] does).

    Trains: d weights, not always the same; stores: their positions; needs: nothing.

    Mocanu et al., Nature Communications 2018 (arXiv:1707.04780).
    """
    sparsity: float
    allocation: Allocation
    fraction: float         # zeta

    def __post_init__(self) -> None:
        require_fractions(fraction=self.fraction)

    def run(self, net: Net, train: Train) -> None:
        net.keep(topk(noise(net), self.allocation(net, 1 - self.sparsity)))
        for start in range(0, len(train), train.epoch_steps):
            stop = min(start + train.epoch_steps, len(train))
            train(start, stop)
            if stop < len(train):
                counts = some(net, self.fraction)
                replant(net, drop(net, rank_by_sign(net), counts), counts)


def rank_by_sign(net: Net) -> Scores:
    """Where |psi| ranks among the trained weights of its layer with the same sign, in (0, 1]: dropping the lowest of
    this score drops the same fraction of the positive and of the negative weights."""
    return {name: _ranks(w.scatter(w.psi.detach())) for name, w in net.weights.items()}


def _ranks(theta: Tensor) -> Tensor:
    ranks = torch.zeros_like(theta)
    for positions in ((theta > 0).nonzero().view(-1), (theta < 0).nonzero().view(-1)):
        order = theta[positions].abs().argsort(stable=True)
        rank = torch.arange(1, len(order) + 1, device=theta.device, dtype=theta.dtype)
        ranks[positions[order]] = rank / max(1, len(order))
    return ranks


@dataclass(frozen=True)
class RigL:
    """Every so often, replace the smallest weights by those whose gradient is largest.

        fraction alpha/2 (1 + cos(pi t / T_end)) of each layer, at t = every, 2 every, ... < T_end, which do not train

    A dropped weight whose gradient is among the largest returns with its value, as in the official code.

    Trains: d weights, not always the same; stores: their positions; needs: dense gradients in the steps that rewire.

    Evci, Gale, Menick, Castro, Elsen, ICML 2020 (arXiv:1911.11134), alg. 1.
    """
    sparsity: float
    allocation: Allocation
    every: int              # steps
    fraction: float         # alpha
    until: float            # T_end, as a fraction of training

    def __post_init__(self) -> None:
        require(self.every > 0, "method.every", self.every, "1 or more steps")
        require_fractions(fraction=self.fraction, until=self.until)

    def run(self, net: Net, train: Train) -> None:
        net.keep(topk(noise(net), self.allocation(net, 1 - self.sparsity)))
        due = train.every(self.every, self.until)
        for t in train.steps(dense_grad=due):
            if due(t) and net.dim < net.total:
                counts = some(net, cosine(self.fraction, 0.0, t / (self.until * len(train))))
                net.keep(grow(drop(net, magnitude(net), counts), steepness(net), counts))
                net.zero_grad()


@dataclass(frozen=True)
class ITOP:
    """Rewire seldom but much, so that in the end training has seen many weights: in-time over-parameterisation.

        a fraction of each layer, floor + (fraction - floor)/2 (1 + cos(pi t / T)), at t = every, 2 every, ... < T

    Drops the smallest weights and grows those whose gradient is largest (RigL) or random ones (SET). Every
    result's `explored` is R_s, the share of all weights that were trained at some time; for random growth of a constant
    fraction p of what is free it is 1 - (1 - d)(1 - p)^updates. A step that rewires trains, as in the official code.

    Trains: d weights, not always the same; stores: their positions; needs: dense gradients in the steps that rewire,
    where it grows by gradients.

    Liu, Yin, Mocanu, Pechenizkiy, ICML 2021 (arXiv:2102.02887).
    """
    sparsity: float
    allocation: Allocation
    every: int              # steps
    fraction: float         # at the start of the cosine
    floor: float            # at its end
    grow: Literal["gradient", "random"]

    def __post_init__(self) -> None:
        require(self.every > 0, "method.every", self.every, "1 or more steps")
        require_fractions(fraction=self.fraction, floor=self.floor)

    def run(self, net: Net, train: Train) -> None:
        net.keep(topk(noise(net), self.allocation(net, 1 - self.sparsity)))
        due = train.every(self.every)
        for t in train.steps(dense_grad=due if self.grow == "gradient" else None):
            if due(t):
                counts = some(net, cosine(self.fraction, self.floor, t / len(train)))
                kept = drop(net, magnitude(net), counts)
                if self.grow == "gradient":
                    net.keep(grow(kept, steepness(net), counts))
                else:
                    replant(net, kept, counts)


@dataclass(frozen=True)
class SNFS:
    """After every epoch, replace the smallest weights by those with the largest momentum, most in layers where it is
    large: sparse networks from scratch, or sparse momentum.

        drop a fraction as in ITOP;  layer l grows a share of them in proportion to the mean |m| of its trained weights

    m <- mu m + dL/dtheta is kept for every weight, trained or not: the momentum of SGD but for weight decay, and the
    same whatever the optimiser. So each step costs a dense gradient. Totals are exact; the official code's corrections
    of layers that are nearly dense or full are replaced by handing on what does not fit.

    Trains: d weights, not always the same; stores: their positions; needs: dense gradients and a dense momentum in
    every step.

    Dettmers, Zettlemoyer, 2019 (arXiv:1907.04840).
    """
    sparsity: float
    allocation: Allocation
    fraction: float         # at the start of the cosine
    floor: float            # at its end
    mu: float

    def __post_init__(self) -> None:
        require_fractions(fraction=self.fraction, floor=self.floor)
        require(0 <= self.mu < 1, "method.mu", self.mu, "a number in [0, 1)")

    def run(self, net: Net, train: Train) -> None:
        net.keep(topk(noise(net), self.allocation(net, 1 - self.sparsity)))
        due = train.every(train.epoch_steps)
        for t in train.steps(dense_grad=lambda t: True):
            for name, grad in net.grads().items():
                momentum = net.notes.setdefault(f"momentum/{name}", torch.zeros_like(grad))
                momentum.mul_(self.mu).add_(grad)
            if due(t):
                counts = some(net, cosine(self.fraction, self.floor, t / len(train)))
                left = {name: net.weights[name].dim - count for name, count in counts.items()}
                size = {name: net.notes[f"momentum/{name}"].abs() for name in net.weights}
                more = regrown(net, left, momentum_shares(net, size))
                net.keep(grow(drop(net, magnitude(net), counts), size, more))


def momentum_shares(net: Net, size: Scores) -> dict[str, float]:
    """Each layer's share of the sum of the layers' mean size of momentum, over trained weights."""
    means = {name: float(w.gather(size[name].view(-1)).mean()) if w.dim else 0.0 for name, w in net.weights.items()}
    total = sum(means.values()) or 1.0
    return {name: mean / total for name, mean in means.items()}


@dataclass(frozen=True)
class DSR:
    """Every so often, drop all weights below one threshold and grow as many random ones, most where most are left.

        drop |theta| < H;  H <- H / 2 if that is more than 1.1 of the target, 2 H if less than 0.9 of it

    The target is a fraction of the trained weights (the paper gives numbers: 600 for LeNet-300-100, 20000 for
    WRN-28-2). Every layer keeps its largest weight. New ones are drawn among all zeros; the official code leaves out
    those just dropped. The result's measure `threshold` is the last H.

    Trains: d weights, not always the same; stores: their positions; needs: nothing.

    Mostafa, Wang, ICML 2019 (arXiv:1902.05967).
    """
    sparsity: float
    allocation: Allocation
    every: int                      # steps, at first
    slower: tuple[float, ...]       # moments at which `every` doubles, as fractions of training
    until: float                    # the last time, as a fraction of training
    target: float                   # to drop each time, as a fraction of the trained weights
    threshold: float                # H, at first

    def __post_init__(self) -> None:
        require(self.every > 0, "method.every", self.every, "1 or more steps")
        require(self.threshold > 0, "method.threshold", self.threshold, "a number above 0")
        require_fractions(until=self.until, target=self.target)
        require(all(0 <= m <= 1 for m in self.slower), "method.slower", self.slower, "fractions of training in [0, 1]")

    def run(self, net: Net, train: Train) -> None:
        net.keep(topk(noise(net), self.allocation(net, 1 - self.sparsity)))
        net.notes["threshold"] = torch.tensor(self.threshold, dtype=torch.float64)
        due = train.every(self.every, self.until)
        for t in train.steps():
            period = self.every * 2 ** sum(t >= moment * len(train) for moment in self.slower)
            if due(t) and t % period == 0 and net.dim < net.total:
                threshold = net.notes["threshold"]
                counts = below(net, float(threshold))
                left = {name: net.weights[name].dim - count for name, count in counts.items()}
                share = sum(counts.values()) / (self.target * net.dim)
                net.notes["threshold"] = threshold / 2 if share > 1.1 else threshold * 2 if share < 0.9 else threshold
                more = regrown(net, left, left)
                replant(net, drop(net, magnitude(net), counts), more)


def below(net: Net, threshold: float) -> dict[str, int]:
    """How many trained weights of each layer are smaller than the threshold; all but one, at most."""
    return {name: max(0, min(int((w.psi.abs() < threshold).sum()), w.dim - 1)) for name, w in net.weights.items()}


@dataclass(frozen=True)
class MEST:
    """Every few epochs, drop the weights that matter least by size and gradient, and grow random ones; ever fewer.

        score = |theta| + lambda |dL/dtheta|;  density d: prune to (1 - f) d, grow to d (elastic mutation)
                                               or prune to d, grow to (1 + f) d and train these (soft memory bound)

    f falls in steps and is 0 in the end, so that d weights are left. No dense gradient is needed. The paper's bounds at
    sparsity 0.9 are 0.92, 0.91, 0.90 (f = 0.2, 0.1) and with the soft bound 0.85, 0.875, 0.90 (f = 0.5, 0.25). lambda
    is from memory (the official scripts leave it at 0).

    Trains: d weights or somewhat more or fewer, not always the same; stores: their positions; needs: nothing.

    Yuan et al., NeurIPS 2021 (arXiv:2110.14032).
    """
    sparsity: float
    allocation: Allocation
    period: int                     # epochs between updates
    fractions: tuple[float, ...]    # f, one for each stage of training but the last
    moments: tuple[float, ...]      # at which a stage ends, as fractions of training
    soft: bool                      # the soft memory bound, EM&S
    gradient: float                 # lambda

    def __post_init__(self) -> None:
        require(self.period > 0, "method.period", self.period, "1 or more epochs")
        require(len(self.fractions) == len(self.moments) > 0, "method.fractions, method.moments",
                (self.fractions, self.moments), "as many of one as of the other")
        require(all(0 <= f <= 1 for f in self.fractions), "method.fractions", self.fractions, "fractions in [0, 1]")
        require(all(0 <= m < 1 for m in self.moments) and sorted(self.moments) == [*self.moments], "method.moments",
                self.moments, "rising fractions of training in [0, 1)")

    def bounds(self, progress: float) -> tuple[float, float]:
        """To what multiples of the density to prune, and to grow again."""
        f = (*self.fractions, 0.0)[sum(progress >= moment for moment in self.moments)]
        return (1.0, 1.0 + f) if self.soft else (1.0 - f, 1.0)

    def run(self, net: Net, train: Train) -> None:
        net.keep(topk(noise(net), self.allocation(net, 1 - self.sparsity)))
        base = {name: w.dim for name, w in net.weights.items()}
        self.mutate(net, base, 1.0, self.bounds(0.0)[1])
        due = train.every(self.period * train.epoch_steps)
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
            replant(net, drop(net, self.scores(net), counts), more)

    def scores(self, net: Net) -> Scores:
        return {name: w.scatter(w.psi.detach().abs() if w.psi.grad is None else
                                w.psi.detach().abs() + self.gradient * w.psi.grad.abs()) for name, w in
                net.weights.items()}


@dataclass(frozen=True)
class GraNet:
    """Prune the smallest weights of all layers little by little, and after each time regrow a part of each layer.

        density 1 - s + (s - s_0) (1 - t / t_1)^3 until t_1;  then drop and grow as ITOP does by gradients

    From s_0 = 0 it is dense-to-sparse training. Without regrowth it is GMP, with s_0 = s ITOP.

    Trains: all weights at first or as many as `start` says, in the end d; stores: their positions; needs: dense
    gradients in the steps that prune and regrow, and all that is not pruned yet.

    Liu et al., NeurIPS 2021 (arXiv:2106.10404).
    """
    sparsity: float
    allocation: Allocation      # at the start; later, layers keep what their weights earn
    start: float                # s_0, the sparsity at the start, or the final one if that is less
    end: float                  # t_1, of pruning, as a fraction of training
    every: int                  # steps
    fraction: float             # of each layer to regrow, at the start of the cosine
    floor: float                # at its end

    def __post_init__(self) -> None:
        require(self.every > 0, "method.every", self.every, "1 or more steps")
        require(0 <= self.start < 1, "method.start", self.start, "a sparsity in [0, 1)")
        require(0 < self.end < 1, "method.end", self.end, "a fraction of training, in (0, 1)")
        require_fractions(fraction=self.fraction, floor=self.floor)

    def run(self, net: Net, train: Train) -> None:
        start, end = min(self.start, self.sparsity), int(self.end * len(train))
        net.keep(topk(noise(net), self.allocation(net, 1 - start)))
        updates = train.every(self.every)

        def due(t: int) -> bool:
            return updates(t) or t == end     # t_1 is before the last step, however few there are

        for t in train.steps(dense_grad=due):
            if due(t):
                gradient = steepness(net)
                if t <= end:
                    left = 1 - t / end if end else 0.0
                    density = 1 - self.sparsity + (self.sparsity - start) * left ** 3
                    net.keep(topk(magnitude(net), round(density * net.total)))
                counts = some(net, cosine(self.fraction, self.floor, t / len(train)))
                net.keep(grow(drop(net, magnitude(net), counts), gradient, counts))


# -- what they share --------------------
def some(net: Net, fraction: float) -> dict[str, int]:
    """This fraction of the trained weights of every layer that is not full."""
    return {name: int(fraction * w.dim) if w.support is not None else 0 for name, w in net.weights.items()}


def steepness(net: Net) -> dict[str, Tensor]:
    """|dL/dtheta|, trained or not."""
    return {name: grad.abs() for name, grad in net.grads().items()}


def replant(net: Net, kept: Supports, counts: Mapping[str, int]) -> None:
    """Drop what is not kept, and grow at random. In two steps: what is drawn again starts at zero like any other."""
    net.keep(kept)
    net.keep(grow_random(net, kept, counts))


def require_fractions(**fields: float) -> None:
    for name, value in fields.items():
        require(0 <= value <= 1, f"method.{name}", value, "a fraction in [0, 1]")
