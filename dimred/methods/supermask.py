"""Strong tickets: a subnetwork that is good without its weights ever being trained. What trains is
a score per weight.

Norms and biases stay as they are initialised, too; the papers' networks have no biases, and norms
without parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from dimred.errors import UserError, require
from dimred.maps import Masked, straight_through
from dimred.net import Net
from dimred.schedules import require_period
from dimred.scores import generator, redrawn
from dimred.select import Allocation, Budget, largest, topk
from dimred.train import Train

#: the weights that a mask is looked for in: as initialised, or their signs times He's standard
#: deviation
Weights = Literal["init", "signed_constant"]


def weights_of(theta: Tensor, weights: Weights) -> Tensor:
    return theta if weights == "init" else theta.sign() * math.sqrt(2 / theta[0].numel())


def uniform(net: Net, low: float, high: float) -> dict[str, Tensor]:
    """U(low, high) for every covered weight."""
    draws = generator(net, "score")
    return {
        name: torch.empty(w.param.shape).uniform_(low, high, generator=draws).to(w.param)
        for name, w in net.weights.items()
    }


@dataclass(frozen=True)
class Supermask:
    """Train a mask of weights that are never trained, and keep what it makes of them."""

    sparsity: float
    allocation: Allocation
    weights: Weights

    def run(self, net: Net, train: Train) -> None:
        self.search(net, train)
        net.fold(
            {
                name: each.eval().mask().view(-1).nonzero().view(-1)  # type: ignore[operator]
                for name, each in net.maps.items()
            }
        )

    def search(self, net: Net, train: Train) -> None:
        self.embed(net)
        train()

    def embed(self, net: Net) -> None:
        """Freeze all there is, and give weights their masks."""
        raise NotImplementedError


@dataclass(frozen=True)
class EdgePopup(Supermask):
    """Train a score for every weight, use the weights with the best scores of each layer, and never
    train a weight.

        E(theta_0) = theta_0 * [|score| among the k largest of its layer];  dL/d|score| = dL/dE * theta_0 for all

    As in the official code, absolute values of scores are ranked. Weights can be signed constants
    (+- He's standard deviation), the better choice of the paper; scale_fan divides them by the
    square root of the density. The best densities are near one half. The paper keeps the same
    fraction of every layer (allocation=uniform), which at 98 % leaves two weights to each class of
    LeNet-300-100: ERK spares small layers.

    Trains: a score for every weight, no weight, bias or norm; stores: instead of them, the mask and
    the seed of the weights; needs: dense weights, scores and their gradients in every step.

    Ramanujan, Wortsman, Kembhavi, Farhadi, Rastegari, CVPR 2020 (arXiv:1911.13299).
    """

    scale_fan: bool

    signed: ClassVar[bool] = False  # are scores ranked with their signs?

    def embed(self, net: Net) -> None:
        """Freeze all there is, and train scores, U(-1, 1) / sqrt(fan in)."""
        counts = of_each(net, self.allocation(net, 1 - self.sparsity))
        net.freeze(dict.fromkeys(net.parameters()))
        net.embed(
            {
                name: TopK(
                    score / math.sqrt(score[0].numel()),
                    counts[name],
                    self.weights,
                    self.scale_fan,
                    self.signed,
                )
                for name, score in uniform(net, -1, 1).items()
            }
        )


def of_each(net: Net, budget: Budget) -> Mapping[str, int]:
    """The budget of each weight. UserError if there is but one of all together."""
    if not isinstance(budget, Mapping):
        raise UserError(
            "scores are ranked within each layer here, and allocation=global ranks all layers together. "
            "Choose another allocation, such as allocation=uniform or allocation=erk"
        )
    return budget


def best_of(score: Tensor, k: int) -> Tensor:
    """A mask, True at the k largest."""
    mask = torch.zeros_like(score, dtype=torch.bool)
    mask.view(-1)[largest(score.view(-1), k)] = True
    return mask


class TopK(nn.Module):
    """A mask of the k largest |score|, or of the k largest scores if `signed`, with the gradient of
    what is ranked."""

    numbers = "scores"

    def __init__(
        self, score: Tensor, k: int, weights: Weights, scale_fan: bool, signed: bool = False
    ) -> None:
        super().__init__()
        self.score, self.k, self.weights, self.signed = nn.Parameter(score), k, weights, signed
        self.scale = math.sqrt(score.numel() / max(1, k)) if scale_fan else 1.0

    def ranked(self) -> Tensor:
        return self.score if self.signed else self.score.abs()

    def mask(self) -> Tensor:
        """True at the k best."""
        return best_of(self.ranked().detach(), self.k)

    def forward(self, theta: Tensor) -> Tensor:
        mask = straight_through(self.mask().to(theta.dtype), self.ranked())
        return self.scale * weights_of(theta, self.weights) * mask


@dataclass(frozen=True)
class IterRand(EdgePopup):
    """Edge-popup that gives unused weights another chance: every so often, some of them are drawn
    again.

        every so many steps: theta_i ~ initial distribution with probability r, for all i that the
        mask leaves out

    Scores are ranked with their signs, as in the official code, where edge-popup ranks absolute
    values. A weight is drawn from the initial values of its layer. The paper draws every 300 of
    39,100 steps.

    Trains: a score for every weight, no weight, bias or norm; stores: the weights in use and their
    positions (the mask and a seed alone, if none of them was drawn again); needs: dense weights,
    scores and their gradients in every step.

    Chijiwa, Yamaguchi, Ida, Umakoshi, Inoue, NeurIPS 2021 (arXiv:2106.09269), alg. 1.
    """

    every: int | float  # steps, or a fraction of training
    probability: float  # r

    signed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_period(self.every)
        require(
            0 <= self.probability <= 1,
            "method.probability",
            self.probability,
            "a probability in [0, 1]",
        )

    def search(self, net: Net, train: Train) -> None:
        self.embed(net)
        due = train.every(self.every)
        for t in train.steps():
            if due(t):
                self.redraw(net)

    @torch.no_grad()
    def redraw(self, net: Net) -> None:
        draws, weights, initial = (
            generator(net, "redraw"),
            dict.fromkeys(net.weights),
            net.initial(),
        )
        now = {name: theta.clone() for name, theta in net.thetas().items()}
        fresh = redrawn({name: initial[name].to(theta) for name, theta in now.items()}, draws)
        net.keep(weights)
        for name, theta in now.items():
            chosen = torch.rand(theta.shape, generator=draws).to(theta.device) < self.probability
            chosen &= ~net.maps[name].mask()  # type: ignore[operator]
            net.weights[name].psi.copy_(fresh[name].where(chosen, theta).view(-1))
        net.freeze(weights)


@dataclass(frozen=True)
class SignedSupermask(EdgePopup):
    """Train a score for every weight that leaves it, flips its sign or prunes it, and never train a
    weight.

        E(theta_0) = theta_0 * m,  m = sign(score) where |score| > threshold, else 0;  dL/dscore = dL/dE * theta_0

    With the paper's fixed threshold (0.01), the weight decay of scores decides how many weights are
    pruned. Without one (null), the k largest |score| of each layer stay, for as many weights as
    were asked for; the official code has a variant alike. Scores start as Glorot's uniform weights
    do. The paper's constant, sqrt(1.5) times He's standard deviation, is what scale_fan makes of a
    density of 2/3.

    Trains: a score for every weight, no weight, bias or norm; stores: instead of them, a mask of
    signs and the seed of the weights; needs: dense weights, scores and their gradients in every
    step.

    Koster, Grothe, Rettinger, ICLR 2022 (arXiv:2201.13361).
    """

    threshold: float | None
    lr: float  # of the scores, as a multiple of the learning rate

    def __post_init__(self) -> None:
        require(
            self.threshold is None or self.threshold >= 0,
            "method.threshold",
            self.threshold,
            "null, or 0 or more",
        )
        require(self.lr > 0, "method.lr", self.lr, "a number above 0")

    def embed(self, net: Net) -> None:
        """Freeze all there is, and train scores, U(-1, 1) * sqrt(6 / (fan in + fan out))."""
        counts = of_each(net, self.allocation(net, 1 - self.sparsity))
        net.freeze(dict.fromkeys(net.parameters()))
        net.embed(
            {
                name: Ternary(
                    score * glorot(score),
                    counts[name],
                    self.weights,
                    self.scale_fan,
                    self.threshold,
                )
                for name, score in uniform(net, -1, 1).items()
            },
            lr=self.lr,
        )


def glorot(weight: Tensor) -> float:
    fan_out = weight[:, 0].numel() if weight.dim() > 1 else 1
    return math.sqrt(6 / (weight[0].numel() + fan_out))


class Ternary(TopK):
    """A mask of signs, of the k largest |score| or of those above a threshold; its gradient is
    taken by the score."""

    def __init__(
        self, score: Tensor, k: int, weights: Weights, scale_fan: bool, threshold: float | None
    ) -> None:
        super().__init__(score, k, weights, scale_fan)
        self.threshold = threshold

    def mask(self) -> Tensor:
        """-1, 0 or 1."""
        score = self.score.detach()
        return score.sign() * (
            super().mask() if self.threshold is None else score.abs() > self.threshold
        )

    def forward(self, theta: Tensor) -> Tensor:
        return (
            self.scale * weights_of(theta, self.weights) * straight_through(self.mask(), self.score)
        )


@dataclass(frozen=True)
class BernoulliSupermask(Supermask):
    """Train the probability that a weight is used, draw a mask in every step, never train a weight.

        E(theta_0) = theta_0 * m * D / sum m,  m ~ Bernoulli(p),  p = sigmoid(score);  dm/dp = 1

    D / sum m is the paper's dynamic rescaling (rescale). In evaluation, and in the end, m is the k
    most probable weights of each layer, for as many weights as were asked for; the official code
    draws there, too, and reports the mean of ten draws. Probabilities start at the density of their
    layer, and after every step all scores of a layer shift so that sum p stays k (ours); the
    paper's start at one half, and the density is an outcome. Signed constants are +- He's standard
    deviation; in the official code that of the layer's initial weights.

    Trains: a score for every weight, no weight, bias or norm; stores: instead of them, the mask and
    the seed of the weights; needs: dense weights, scores and their gradients in every step.

    Zhou, Lan, Liu, Yosinski, NeurIPS 2019 (arXiv:1905.01067), sec. 5.
    """

    rescale: bool
    lr: float  # of the scores, as a multiple of the learning rate

    def __post_init__(self) -> None:
        require(self.lr > 0, "method.lr", self.lr, "a number above 0")

    def search(self, net: Net, train: Train) -> None:
        self.embed(net)
        for t in train.steps():
            for mask in net.maps.values():
                mask.advance(t + 1)  # type: ignore[operator]

    def embed(self, net: Net) -> None:
        """Freeze all there is, and train scores, those of a layer alike."""
        counts = of_each(net, self.allocation(net, 1 - self.sparsity))
        net.freeze(dict.fromkeys(net.parameters()))
        seeds = torch.randint(2**62, (len(counts),), generator=generator(net, "bernoulli")).tolist()
        masks = {
            name: Bernoulli(w.param, counts[name], self.weights, self.rescale, seed)
            for (name, w), seed in zip(net.weights.items(), seeds, strict=True)
        }
        net.embed(masks, lr=self.lr, decay=0.0)


class Bernoulli(nn.Module):
    """A mask that is drawn anew in every step; in evaluation, that of the k largest scores."""

    numbers = "scores"

    step: Tensor

    def __init__(self, weight: Tensor, k: int, weights: Weights, rescale: bool, seed: int) -> None:
        super().__init__()
        p = min(max(k / weight.numel(), 0.001), 0.999)  # of which the score is finite
        score = torch.full_like(weight, math.log(p / (1 - p)), requires_grad=False)
        self.score = nn.Parameter(score)
        self.k, self.weights, self.rescale, self.seed = k, weights, rescale, seed
        # with the seed it says what is drawn, so that a resumed run draws the same
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def advance(self, step: int) -> None:
        """Draw anew, and shift all scores by a Newton step towards sum p = k."""
        p = torch.sigmoid(self.score)
        shift = (p.sum() - self.k) / (p * (1 - p)).sum().clamp(min=1e-6)
        self.score.sub_(shift.clamp(-1, 1))
        self.step.fill_(step)

    def mask(self) -> Tensor:
        """True where a weight is used."""
        score = self.score.detach()
        if not self.training:
            return best_of(score, self.k)
        draws = torch.Generator(score.device).manual_seed(self.seed + int(self.step))
        return torch.rand(score.shape, generator=draws, device=score.device) < torch.sigmoid(score)

    def forward(self, theta: Tensor) -> Tensor:
        mask = straight_through(self.mask().to(theta.dtype), torch.sigmoid(self.score))
        scale = mask.numel() / mask.sum().clamp(min=1) if self.rescale else 1.0
        return scale * weights_of(theta, self.weights) * mask


@dataclass(frozen=True)
class RareGems:
    """Prune by trained scores while the weights stay untrained, then fine-tune the weights that are
    left.

        E(theta_0) = theta_0 * [p > 1/2] * kept,  p in [0, 1];  loss + price * sum p^2;  prune the smallest p

    The density falls exponentially to the one that was asked for, in prunings at equal intervals;
    then all weights that are left train, whatever their p (`unflag` in the official code), along
    with biases and norms.

    Trains: a score for every weight, then d weights; stores: their positions; needs: dense weights,
    scores and their gradients until it fine-tunes.

    Sreenivasan, Sohn, Yang, Grinde, Nagle, Wang, Xing, Lee, Papailiopoulos, NeurIPS 2022
    (arXiv:2202.12002)."""

    sparsity: float
    allocation: Allocation
    weights: Weights
    prunings: int
    price: float
    lr: float  # of the fine-tuning, as a multiple of the learning rate

    def __post_init__(self) -> None:
        require(self.prunings > 0, "method.prunings", self.prunings, "1 or more")
        require(self.price >= 0, "method.price", self.price, "0 or more")
        require(self.lr > 0, "method.lr", self.lr, "a number above 0")

    def run(self, net: Net, train: Train) -> None:
        net.freeze(dict.fromkeys(net.parameters()))
        gems = {name: Gem(p, self.price, self.weights) for name, p in uniform(net, 0, 1).items()}
        net.embed(gems, decay=0.0)  # p has a price of its own
        times = [j * len(train) // (self.prunings + 1) for j in range(1, self.prunings + 1)]
        for t in train.steps():
            if t in times:
                progress = sum(time <= t for time in times) / self.prunings
                budget = self.allocation(net, (1 - self.sparsity) ** progress)
                for name, kept in topk(
                    {name: gem.rank() for name, gem in gems.items()}, budget
                ).items():
                    gems[name].keep(kept)
        self.release(net, gems)
        train.scale_lr(dict.fromkeys(net.parameters(), self.lr))
        train()

    @torch.no_grad()
    def release(self, net: Net, gems: Mapping[str, Gem]) -> None:
        """Train what is not pruned, from the values that the mask chose among, and whatever is no
        weight."""
        net.zero_grad()  # so that scores are left alone
        net.maps.clear()
        kept = {name: gem.kept.view(-1).nonzero().view(-1) for name, gem in gems.items()}
        net.keep({**kept, **dict.fromkeys(net.rest)}, base="init")  # with their values,
        net.keep(kept)  # beside zeros
        for w in net.weights.values():
            w.psi.copy_(
                w.gather(weights_of(w.dense().view(w.param.shape), self.weights).reshape(-1))
            )


class Gem(Masked):
    """A mask [p > 1/2] of what is not pruned. Whoever uses it finds p clipped to [0, 1]."""

    numbers = "scores"

    def __init__(self, p: Tensor, price: float, weights: Weights) -> None:
        super().__init__(p)
        self.p, self.price, self.weights = nn.Parameter(p), price, weights

    def forward(self, theta: Tensor) -> Tensor:
        with torch.no_grad():
            self.p.clamp_(0, 1)
        mask = straight_through((self.p > 0.5).to(theta.dtype), self.p)
        return super().forward(weights_of(theta, self.weights)) * mask

    def penalty(self, theta: Tensor) -> Tensor:
        return self.price * (self.p * self.kept).square().sum()

    def rank(self) -> Tensor:
        """p, and -inf where it is pruned."""
        return self.p.detach().masked_fill(~self.kept, -torch.inf)
