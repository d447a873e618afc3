"""Coordinates chosen once, before training."""
from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dimred.ablations import Ablation, inverted, reinitialise, shuffled
from dimred.coordinates import Supports
from dimred.errors import require
from dimred.net import Net
from dimred.scores import (
    NAMED,
    Batch,
    Named,
    Scores,
    Thetas,
    balanced,
    combined,
    generator,
    gradients,
    grasp,
    lamp,
    magnitude,
    masked,
    noise,
    ntk_sap,
    phew,
    prospr,
    snip,
    synflow,
    transfer,
    untouched,
)
from dimred.select import Allocation, Budget, topk
from dimred.train import Train


@dataclass(frozen=True)
class AtInit:
    """Score every weight, train the best, leave the others at zero or at their initial value.

    Every method of this family can be ablated (dimred/ablations.py).
    """
    sparsity: float
    allocation: Allocation
    base: Literal["zero", "init"]
    ablation: Ablation

    def scores(self, net: Net, train: Train) -> Scores:
        raise NotImplementedError

    def choose(self, net: Net, train: Train) -> Supports:
        return self.best(self.scores(net, train), self.allocation(net, 1 - self.sparsity))

    def best(self, scores: Scores, budget: Budget, among: Supports | None = None) -> Supports:
        """The weights that score highest (lowest if inverted), of those in the supports."""
        scores = inverted(scores) if self.ablation == "invert" else scores
        return topk(masked(scores, among, -torch.inf) if among else scores, budget)

    def prune(self, net: Net, train: Train) -> None:
        supports = self.choose(net, train)
        net.keep(shuffled(net, supports) if self.ablation == "shuffle" else supports, base=self.base)
        if self.ablation == "reinit":
            reinitialise(net)

    def run(self, net: Net, train: Train) -> None:
        train.once(lambda: self.prune(net, train))
        train()


# -- one look --------------------
@dataclass(frozen=True)
class Random(AtInit):
    """Train random weights; the baseline every score must beat.

        score ~ N(0, 1)

    Trains: d weights; stores: their positions, or the seed that drew them; needs: nothing.

    Frankle et al., ICLR 2021 (arXiv:2009.08576); Liu et al., ICLR 2022 (arXiv:2202.02643).
    """

    def scores(self, net: Net, train: Train) -> Scores:
        return noise(net)


@dataclass(frozen=True)
class Magnitude(AtInit):
    """Train the weights that start out largest.

        score = |theta_0|

    Trains: d weights; stores: their positions; needs: nothing.

    Frankle et al., ICLR 2021 (arXiv:2009.08576).
    """

    def scores(self, net: Net, train: Train) -> Scores:
        return magnitude(net)


@dataclass(frozen=True)
class LAMP(AtInit):
    """Train the weights that start out largest, compared with what is left of their layer.

        score = theta_u^2 / sum of theta_v^2 over all v of the layer with |theta_v| >= |theta_u|

    The paper prunes trained networks; here the score is taken before training, as the other ones.

    Trains: d weights; stores: their positions; needs: nothing.

    Lee, Park, Mo, Ahn, Shin, ICLR 2021 (arXiv:2010.07611), eq. 4.
    """

    def scores(self, net: Net, train: Train) -> Scores:
        return lamp(net)


@dataclass(frozen=True)
class SNIP(AtInit):
    """Train the weights that the loss feels most, on one batch before training.

        score = |theta * dL/dtheta|

    Scores and training use the same initial weights; the official code trains a second draw.

    Trains: d weights; stores: their positions; needs: dense gradients once, before training.

    Lee, Ajanthan, Torr, ICLR 2019 (arXiv:1810.02340), eq. 4-5.
    """
    examples: int

    def scores(self, net: Net, train: Train) -> Scores:
        return snip(net, train.sample(self.examples))


@dataclass(frozen=True)
class FreezeNet(SNIP):
    """Train SNIP's weights; the others stay at their initial value instead of zero.

        theta = theta_0;  theta[support] = psi,  support = top |theta_0 * dL/dtheta_0|

    Any other method of this family does so with base=init.

    Trains: d weights; stores: their positions, and the seed of the others; needs: dense gradients once, before
    training, and dense weights in every pass.

    Wimmer, Mehnert, Condurache, ACCV 2020 (arXiv:2011.14087).
    """


@dataclass(frozen=True)
class GraSP(AtInit):
    """Train the weights without which the gradient would shrink.

        score = theta * (H g),  g and H the gradient and Hessian of the cross-entropy of logits / temperature

    One balanced batch; the official code adds up two halves, whose BatchNorm statistics differ, and scores a copy with
    newly drawn Linear layers. In double precision: at this temperature H g is tiny.

    Trains: d weights; stores: their positions; needs: dense gradients of second order once, before training.

    Wang, Zhang, Grosse, ICLR 2020 (arXiv:2002.07376), eq. 8.
    """
    per_class: int
    temperature: float

    def __post_init__(self) -> None:
        require(self.per_class > 0, "method.per_class", self.per_class, "1 or more examples")
        require(self.temperature > 0, "method.temperature", self.temperature, "a number above 0")

    def scores(self, net: Net, train: Train) -> Scores:
        return grasp(net, balanced_batch(train, self.per_class), self.temperature)


@dataclass(frozen=True)
class CroP(GraSP):
    """Train the weights without which the gradient would change most, for better or worse.

        score = |theta * (H g)|

    The temperature, 1 here, and the batch are those of GraSP (from memory).

    Trains: d weights; stores: their positions; needs: dense gradients of second order once, before training.

    Rachwan et al., ICML 2022 (arXiv:2206.10451).
    """

    def scores(self, net: Net, train: Train) -> Scores:
        return {name: score.abs() for name, score in super().scores(net, train).items()}


@dataclass(frozen=True)
class ProsPr(AtInit):
    """Train the weights that the loss feels most after a few steps of training, felt through these steps.

        score = |dL(theta_M)/dc| at c = 1;  theta_0 = c * theta,  theta_{m+1} = theta_m - lr * dL/dtheta_m

    Only covered weights take the inner steps, by plain gradient descent; each step has a batch of its own.

    Trains: d weights; stores: their positions; needs: dense gradients through a few steps of dense training, once.

    Alizadeh et al., ICLR 2022 (arXiv:2202.08132).
    """
    examples: int
    steps: int              # M
    lr: float
    first_order: bool

    def __post_init__(self) -> None:
        require(self.steps >= 0, "method.steps", self.steps, "0 (which is SNIP) or more")
        require(self.lr >= 0, "method.lr", self.lr, "0 or more")

    def scores(self, net: Net, train: Train) -> Scores:
        return prospr(net, batches(train, self.examples, self.steps + 1), self.lr, self.first_order)


@dataclass(frozen=True)
class PHEW(AtInit):
    """Train the weights that random walks from inputs to outputs and back come by, drawn by the size of weights.

        P(i -> j) = |W_ij|_1 / sum_j |W_ij|_1, and within the kernel W_ij by |w| / |W_ij|_1, until enough are visited

    The last few, fewer than a path, are single weights that close one: so the count is exact and all lie on paths. At
    high density, where walks find nothing new, the rest is chosen like this, too. Where paths part, as at a shortcut,
    all weights that lead on compete; the official code tosses a coin.

    Trains: d weights; stores: their positions; needs: nothing.

    Patil, Dovrolis, ICML 2021 (arXiv:2010.11354).
    """

    def scores(self, net: Net, train: Train) -> Scores:
        count = round((1 - self.sparsity) * net.total)
        return phew(net, train.data.shape, count, generator(net, "phew"))


@dataclass(frozen=True)
class COPS(AtInit):
    """Train the best weights by one score among all choices that do well by others, too.

        max_m <m, S_1>  subject to  <m, S_j> >= level_j * max_m' <m', S_j>  for j = 2, 3, ...,  |m| = d

    Solved through the dual of the linear program (derived, as are the levels relative to the best attainable: the text
    of the paper was not at hand). Scores: snip, grasp, crop, synflow (one-shot), magnitude, lamp, random.

    Trains: d weights; stores: their positions; needs: what its scores need, once.

    Wimmer, Mehnert, Condurache, 2021 (arXiv:2107.12673).
    """
    maximise: Named
    subject_to: tuple[Named, ...]
    levels: tuple[float, ...]
    examples: int

    def __post_init__(self) -> None:
        require(len(self.levels) == len(self.subject_to) > 0, "method.levels", self.levels,
                "one number for each score of method.subject_to")
        require(all(0 <= level <= 1 for level in self.levels), "method.levels", self.levels, "fractions in [0, 1]")

    def scores(self, net: Net, train: Train) -> Scores:
        batch, budget = train.sample(self.examples), self.allocation(net, 1 - self.sparsity)
        scores = [NAMED[name](net, batch) for name in (self.maximise, *self.subject_to)]
        return combined(scores, self.levels, lambda score: topk(score, budget))


# -- several rounds --------------------
@dataclass(frozen=True)
class Iterative(AtInit):
    """Score, prune a little, score what is left, and so on."""
    rounds: int                                     # T
    schedule: Literal["exponential", "linear"]
    regrow: ClassVar[bool] = False                  # may what was pruned return?

    def __post_init__(self) -> None:
        require(self.rounds > 0, "method.rounds", self.rounds, "1 or more")

    def scorer(self, net: Net, train: Train) -> Callable[[Supports, int], Scores]:
        """The score of all weights where only those in the supports are not zero, in a round 0, 1, ..."""
        raise NotImplementedError

    def densities(self) -> Iterator[float]:
        for t in range(1, self.rounds + 1):
            done = t / self.rounds
            yield (1 - self.sparsity) ** done if self.schedule == "exponential" else 1 - self.sparsity * done

    def choose(self, net: Net, train: Train) -> Supports:
        score, supports = self.scorer(net, train), net.supports
        for t, density in enumerate(self.densities()):
            among = None if self.regrow else supports
            supports = dict(self.best(score(supports, t), self.allocation(net, density), among))
        return supports


@dataclass(frozen=True)
class IterSNIP(Iterative):
    """SNIP in many small rounds: score what is left, prune a little of it.

        score_t = |theta * m_t * dL/dtheta (theta * m_t)|,  density_t = density^(t/T)

    Every round has a batch of its own, as long as there are examples.

    Trains: d weights; stores: their positions; needs: dense gradients in each of the rounds before training.

    de Jorge et al., ICLR 2021 (arXiv:2006.09081); Verdenius et al., 2020 (arXiv:2006.00896).
    """
    examples: int

    def scorer(self, net: Net, train: Train) -> Callable[[Supports, int], Scores]:
        pool = batches(train, self.examples, self.rounds)

        def score(supports: Supports, t: int) -> Scores:
            thetas = net.thetas()
            grads = gradients(net, pool[t], at=masked(thetas, supports))
            return {name: (theta * grads[name]).abs() for name, theta in thetas.items()}
        return score


@dataclass(frozen=True)
class FORCE(IterSNIP):
    """SNIP in many small rounds, in which pruned weights are scored as if they returned, and may.

        score_t = |theta * dL/dtheta (theta * m_t)|,  density_t = density^(t/T)

    Every round has a batch of its own, as long as there are examples.

    Trains: d weights; stores: their positions; needs: dense gradients in each of the rounds before training.

    de Jorge et al., ICLR 2021 (arXiv:2006.09081).
    """
    regrow: ClassVar[bool] = True


@dataclass(frozen=True)
class SynFlow(Iterative):
    """Without any data, prune the weights that carry the least of what flows from inputs to outputs, little by little.

        score = |theta| dR/d|theta|,  R = 1^T f_|theta|(1);  density_t = density^(t/T)

    With power=2, theta^2 takes the place of |theta| (SynFlow-L2, from the PHEW paper, arXiv:2010.11354).

    Trains: d weights; stores: their positions; needs: dense gradients in each of the rounds before training.

    Tanaka, Kunin, Yamins, Ganguli, NeurIPS 2020 (arXiv:2006.05467), alg. 1.
    """
    power: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.power > 0, "method.power", self.power, "1 or 2")

    def scorer(self, net: Net, train: Train) -> Callable[[Supports, int], Scores]:
        return lambda supports, t: synflow(net, train.data.shape, supports, self.power)


@dataclass(frozen=True)
class NTKSAP(Iterative):
    """Without labels or data, prune the weights that the spectrum of the neural tangent kernel feels least.

        score = |d/dm sum_x |f(x; theta m) - f(x; (theta + epsilon z) m)|^2|,  x, z ~ N(0, 1);
        density_t = density^(t/T)

    Each draw has its own x and z, and initial weights of its own: a permutation of those of each layer.

    Trains: d weights; stores: their positions; needs: dense gradients for every draw of every round before training.

    Wang, Li, Sun, ICLR 2023 (arXiv:2304.02840).
    """
    examples: int
    draws: int              # R
    epsilon: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.examples > 0, "method.examples", self.examples, "1 or more images")
        require(self.draws > 0, "method.draws", self.draws, "1 or more")
        require(self.epsilon > 0, "method.epsilon", self.epsilon, "a number above 0")

    def scorer(self, net: Net, train: Train) -> Callable[[Supports, int], Scores]:
        return lambda supports, t: ntk_sap(net, train.data.shape, supports, self.examples, self.draws, self.epsilon,
                                           generator(net, f"ntk_sap {t}"))


# -- values, too --------------------
@dataclass(frozen=True)
class NTT(AtInit):
    """Without labels, move the largest weights until the pruned network computes and learns as the dense one does.

        min |f_s - f_t|^2 / size + kernel |(K_s - K_t) u|^2 / size + decay / density * |theta_s|^2,  u ~ N(0, 1)

    The official code compares the whole kernels of two halves of a batch; their product with a random u has the same
    mean and needs no Jacobians. Only covered weights move (by Adam) and count in the kernel; norms work as in training.
    Weights are chosen anew by size every so often, for the last time `every` steps before the end; the paper does so in
    every layer (allocation=uniform). The official demo takes 18720 steps, but its published log has the kernel distance
    fall from 6439 to 977 in the first 1000, and after 5600 it is 469.

    Trains: d weights, after a transfer that moves all those which it may choose; stores: their positions; needs: dense
    weights and gradients in the transfer.

    Liu, Zenke, ICML 2020 (arXiv:2006.08228).
    """
    steps: int              # of the transfer
    lr: float
    batch_size: int
    kernel: float           # lambda of the kernels
    decay: float            # lambda of the weights
    every: int              # steps between choices

    def __post_init__(self) -> None:
        require(self.steps > 0, "method.steps", self.steps, "1 or more")
        require(self.lr >= 0, "method.lr", self.lr, "0 or more")
        require(self.every > 0, "method.every", self.every, "1 or more steps")
        require(self.batch_size > 1, "method.batch_size", self.batch_size, "2 or more examples")

    def choose(self, net: Net, train: Train) -> Supports:
        budget = self.allocation(net, 1 - self.sparsity)
        teacher, student = ({name: theta.clone().requires_grad_() for name, theta in net.thetas().items()}
                            for _ in range(2))
        optimizer, draws = torch.optim.Adam(student.values(), lr=self.lr, fused=True), generator(net, "ntt")
        steps = self.steps if self.sparsity else 0      # without sparsity there is nothing to transfer
        supports, twin = self.best(magnitude(net), budget), copy.deepcopy(net)
        with untouched(twin.model):
            for t, images in zip(range(steps), self.images(train), strict=False):
                if 0 < t <= steps - self.every and t % self.every == 0:
                    supports = self.best({name: theta.detach().abs() for name, theta in student.items()}, budget)
                optimizer.zero_grad()
                self.distance(twin, student, teacher, supports, images, draws).backward()
                optimizer.step()
        with torch.no_grad():
            for name, w in net.weights.items():
                w.psi.copy_(w.gather(student[name].view(-1)))
        return supports

    def distance(self, net: Net, student: Thetas, teacher: Thetas, supports: Supports, images: Tensor,
                 draws: torch.Generator) -> Tensor:
        """What is minimised, for one batch."""
        inside = masked(student, supports)
        others = {name: teacher[name].detach() - theta for name, theta in masked(teacher, supports).items()}
        thetas = {name: theta + others[name] for name, theta in inside.items()} if self.base == "init" else inside
        far, kernels_far = transfer(net, thetas, teacher, supports, images, draws)
        size = sum(theta.square().sum() for theta in inside.values())
        return far + self.kernel * kernels_far + self.decay / (1 - self.sparsity) * size

    def images(self, train: Train) -> Iterator[Tensor]:
        for epoch in itertools.count():
            for images, _ in train.data.train_batches(self.batch_size, train.seed, epoch):
                yield images


# -- batches --------------------
def batches(train: Train, examples: int, count: int) -> list[Batch]:
    """Batches of examples to score with, different ones as long as there are enough."""
    size = train.data.sizes["train"]
    images, labels = train.sample(min(examples * count, size) if examples <= size else examples)
    rows = [torch.arange(i * examples, (i + 1) * examples, device=images.device) % len(images) for i in range(count)]
    return [(images[row], labels[row]) for row in rows]


def balanced_batch(train: Train, per_class: int) -> Batch:
    """As many examples of each class; fewer of a class that is rare among eight times as many."""
    return balanced(train.sample(min(8 * per_class * train.data.classes, train.data.sizes["train"])), per_class)
