"""Lottery tickets: train, prune, rewind, again."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from dimred.channels import Channels
from dimred.coordinates import Supports
from dimred.errors import UserError, require
from dimred.net import Net
from dimred.own_density import note_own_density
from dimred.scores import Scores, noise, trained_only
from dimred.select import Allocation, last_matrix, rounded_down, topk
from dimred.train import Train

log = logging.getLogger(__name__)

MOST_ROUNDS = 1000  # of training, pruning and rewinding

Criterion = Literal[
    "large_final",
    "small_final",
    "large_init",
    "small_init",
    "large_init_large_final",
    "small_init_small_final",
    "magnitude_increase",
    "movement",
    "large_final_same_sign",
    "magnitude_increase_same_sign",
    "random",
]


@dataclass(frozen=True)
class IMP:
    """Iterative magnitude pruning: train, prune a fifth of what is left, rewind, until sparse
    enough, and train.

        density after round k = max(1 - s, (1 - rate)^k);  then psi <- theta_rewind[support], or only lr goes back

    What goes back: `weights` (with norms and momentum) and the learning rate; `lr` alone; or
    `nothing`, which is fine-tuning: as many steps as from `rewind` to the end, all at the last
    learning rate. The criteria, and what to do with pruned weights, are those of Zhou et al.;
    "init" is the beginning of training wherever weights rewind to.

    Three switches follow official codes. By default a round keeps round(density D) weights; with
    counts=floor it keeps what was left times 1 - rate, rounded down (open_lth). With fresh_momentum
    every training from `rewind` on, the first too, begins without momentum (open_lth); by default
    momentum goes back with the weights. With last_at_half_rate the output layer loses half as large
    a fraction of its weights as all together (Frankle, Carbin), and the others make up for it.

    Trains: all weights in the first round, a fifth fewer in each, d in the last; stores: their
    positions; needs: dense weights and gradients in the first round, and the weights to go back to.

    Frankle, Carbin, ICLR 2019 (arXiv:1803.03635); rewinding: Frankle et al., ICML 2020
    (arXiv:1912.05671); learning rate rewinding, fine-tuning: Renda et al., ICLR 2020
    (arXiv:2003.02389); criteria, pruned weights: Zhou et al., NeurIPS 2019 (arXiv:1905.01067)."""

    sparsity: float
    allocation: Allocation
    rate: float  # of the remaining weights, pruned in every round; 1 is one-shot
    rewind: int  # the step to go back to
    what: Literal["weights", "lr", "nothing"]
    criterion: Criterion  # the weights that score highest stay
    pruned: Literal[
        "zero", "init", "zero_or_init"
    ]  # what they read; the last: zero if they moved towards it
    counts: Literal["round", "floor"] = field(default="round", kw_only=True)
    fresh_momentum: bool = field(default=False, kw_only=True)
    last_at_half_rate: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        require(0 < self.rate <= 1, "method.rate", self.rate, "a fraction in (0, 1]")
        if (rounds := self.rounds()) > MOST_ROUNDS:
            enough = 1.1 * (1 - (1 - self.sparsity) ** (1 / MOST_ROUNDS))
            raise UserError(
                f"method.rate={self.rate} reaches sparsity={self.sparsity} in {rounds} rounds, each a "
                f"whole training; {MOST_ROUNDS} are allowed. Choose a larger one: {enough:.2g} would do, "
                "the paper's is 0.2"
            )

    def rounds(self) -> int:
        """How often to prune: the least k with (1 - rate)^k <= 1 - sparsity."""
        if self.sparsity == 0:
            return 0
        return (
            1
            if self.rate == 1
            else math.ceil(math.log1p(-self.sparsity) / math.log1p(-self.rate) - 1e-9)
        )

    def run(self, net: Net, train: Train) -> None:
        train(0, self.rewind)
        ticket = train.snapshot()
        self.begin(train)
        train(self.rewind)
        for left in train.rounds(self.counts_left(net.total)):
            prune(net, self.choose(net, left), self.pruned)
            if self.what == "weights":
                net.restore(ticket)
            self.begin(train)
            train(self.rewind, lr_of=len(train) - 1 if self.what == "nothing" else None)

    def begin(self, train: Train) -> None:
        if self.fresh_momentum:
            train.optimizer.state.clear()

    def counts_left(self, total: int) -> list[int]:
        """How many weights are left after each round."""
        left, counts = total, []
        for k in range(1, self.rounds() + 1):
            if self.counts == "floor":
                left = rounded_down(max((1 - self.sparsity) * total, (1 - self.rate) * left))
            else:
                left = round(max(1 - self.sparsity, (1 - self.rate) ** k) * total)
            counts.append(left)
        return counts

    def choose(self, net: Net, left: int) -> Supports:
        """The weights that score highest, `left` of them."""
        ranks = scores(net, self.criterion)
        if not self.last_at_half_rate:
            return topk(ranks, self.allocation(net, left / net.total))
        name = last_matrix(net)
        require(
            name in net.weights and len(net.weights) > 1,
            "method.last_at_half_rate",
            True,
            f"false where {name}, the output layer, is not covered, or nothing else is",
        )
        trained = {each: w.dim for each, w in net.weights.items()}
        kept = min(left, round(trained[name] * (1 + left / sum(trained.values())) / 2))
        others = copy.copy(net)
        others.weights = {each: w for each, w in net.weights.items() if each != name}
        budget = self.allocation(others, (left - kept) / others.total)
        chosen = dict(topk({each: ranks[each] for each in others.weights}, budget))
        return chosen | dict(topk({name: ranks[name]}, kept))


@torch.no_grad()
def prune(net: Net, supports: Supports, pruned: Literal["zero", "init", "zero_or_init"]) -> None:
    """Train these supports alone. A pruned weight reads zero or its initial value, or of both what
    it moved towards."""
    if pruned != "zero_or_init":
        net.keep(supports, base=pruned)
        return
    initial, gone = net.initial(), {}
    for name, w in net.weights.items():
        start = initial[name].to(w.param).view(-1)
        left = w.trained().index_fill(0, supports[name], False)  # type: ignore[arg-type]
        held = torch.where(left, start.where(w.dense().abs() >= start.abs(), 0.0), w.dense())
        w.psi.copy_(w.gather(held))
        gone[name] = left.nonzero().view(-1)
    net.freeze(gone)


def scores(net: Net, criterion: Criterion) -> Scores:
    """Of the weights that are trained now; the others rank last."""
    if criterion == "random":
        return trained_only(net, noise(net))
    initial = net.initial()
    return trained_only(
        net,
        {
            name: w.scatter(
                CRITERIA[criterion](w.psi.detach(), w.gather(initial[name].to(w.param).view(-1)))
            ).view(w.param.shape)
            for name, w in net.weights.items()
        },
    )


def _rank(values: Tensor) -> Tensor:
    """The fraction of a layer's values that are not larger, in (0, 1]."""
    return (values.argsort(stable=True).argsort() + 1) / max(1, len(values))


#: of final and initial values of a layer's trained weights (d each); "both large": no percentile of
#: either is low
CRITERIA: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "large_final": lambda final, init: final.abs(),
    "small_final": lambda final, init: -final.abs(),
    "large_init": lambda final, init: init.abs(),
    "small_init": lambda final, init: -init.abs(),
    "large_init_large_final": lambda final, init: torch.minimum(
        _rank(init.abs()), _rank(final.abs())
    ),
    "small_init_small_final": lambda final, init: torch.minimum(
        _rank(-init.abs()), _rank(-final.abs())
    ),
    "magnitude_increase": lambda final, init: final.abs() - init.abs(),
    "movement": lambda final, init: (final - init).abs(),
    "large_final_same_sign": lambda final, init: final.abs() * (final.sign() == init.sign()),
    "magnitude_increase_same_sign": lambda final, init: (
        (final.abs() - init.abs()) * (final.sign() == init.sign())
    ),
}


@dataclass(frozen=True)
class ContinuousSparsification:
    """Multiply weights by a soft mask that hardens while both are trained, then rewind the weights
    that it chose.

        E(psi) = psi * sigmoid(beta s) / sigmoid(s_0);  beta = beta_T^(t / T);  loss + price * sum sigmoid(beta s)

    Between rounds s <- min(beta_T s, s_0) and beta <- 1, so that only what was pruned stays so. The
    paper's ticket is what has s > 0, and s_0 controls how sparse it is; here it is as many weights
    as were asked for, those with the largest s. The result's `measures` have the density of the
    paper's ticket (`own_density`).

    Trains: all weights and a score for each, d weights in the end; stores: their positions; needs:
    dense weights, scores and their gradients until the last round, and the weights to go back to.

    Savarese, Silva, Maire, NeurIPS 2020 (arXiv:1912.04427).
    """

    sparsity: float
    allocation: Allocation
    rounds: int
    rewind: int  # the step to go back to
    start: float  # s_0
    beta: float  # beta_T
    price: float  # of a weight

    def __post_init__(self) -> None:
        require(self.rounds > 0, "method.rounds", self.rounds, "1 or more")
        require(self.beta >= 1, "method.beta", self.beta, "1 or more")
        require(self.price >= 0, "method.price", self.price, "0 or more")

    def run(self, net: Net, train: Train) -> None:
        masks = {name: SoftMask(w.param, self.start, self.price) for name, w in net.weights.items()}
        net.embed(masks, decay=0.0)
        self.anneal(train, masks, 0, self.rewind)
        ticket = train.snapshot()
        self.anneal(train, masks, self.rewind, len(train))
        for _ in train.rounds(range(1, self.rounds)):
            for mask in masks.values():
                mask.reset()
            self.anneal(train, masks, 0, len(train))
        chosen = topk(
            {name: mask.s.detach() for name, mask in masks.items()},
            self.allocation(net, 1 - self.sparsity),
        )
        train.once(
            lambda: note_own_density(
                net, used(masks), 1 - self.sparsity, "Choose a smaller method.start"
            )
        )
        net.keep(chosen)
        net.restore(ticket)
        net.zero_grad()  # so that masks are left alone
        net.embed({name: Times(masks[name].scale) for name in masks})
        train(self.rewind)
        net.fold(net.supports)

    def anneal(self, train: Train, masks: Mapping[str, SoftMask], start: int, stop: int) -> None:
        for t in train.steps(start, stop):
            for mask in masks.values():
                mask.beta.fill_(self.beta ** ((t + 1) / len(train)))


def used(masks: Mapping[str, SoftMask]) -> int:
    """How many weights the paper's ticket has."""
    return sum(int((mask.s > 0).sum()) for mask in masks.values())


class SoftMask(nn.Module):
    numbers = "gates"
    beta: Tensor

    def __init__(self, weight: Tensor, start: float, price: float) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.full_like(weight, start, requires_grad=False))
        self.register_buffer("beta", weight.new_ones(()))
        self.start, self.scale, self.price = start, 1 + math.exp(-start), price

    def forward(self, theta: Tensor) -> Tensor:
        return self.scale * torch.sigmoid(self.beta * self.s) * theta

    def penalty(self, theta: Tensor) -> Tensor:
        return self.price * torch.sigmoid(self.beta * self.s).sum()

    @torch.no_grad()
    def reset(self) -> None:
        """Soft again, but for what is pruned."""
        self.s.mul_(self.beta).clamp_(max=self.start)
        self.beta.fill_(1.0)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, theta: Tensor) -> Tensor:
        return self.factor * theta


@dataclass(frozen=True)
class EarlyBird:
    """Train with an L1 penalty on the scales of norms until the channels worth keeping are known,
    and go on with them.

        mask = the channels with the largest |gamma|, one after every epoch;  found when each of the last `masks` masks
        differs from the newest in at most the fraction `distance` of all channels;  gradient of gamma += s sign(gamma)

    Where it is not found in time, what is best then is kept (ours). The penalty ends with the
    search. Channels that are added have several scales; their mean decides (ours).

    Trains: all weights until the ticket is found, then its channels; stores: nothing: what is left
    is a small dense net; needs: dense weights and gradients until the ticket is found.

    You, Li, Xu, Fu, Wang, Chen, Baraniuk, Wang, Lin, ICLR 2020 (arXiv:1909.11957), alg. 1.
    """

    sparsity: float
    of: Literal["weights", "channels"]
    masks: int  # that have to agree
    distance: float
    until: float  # the end of the search, as a fraction of training
    penalty: float  # s

    def __post_init__(self) -> None:
        require(self.masks > 1, "method.masks", self.masks, "2 or more")
        require(
            0 <= self.distance <= 1,
            "method.distance",
            self.distance,
            "a fraction of the channels, in [0, 1]",
        )
        require(0 < self.until < 1, "method.until", self.until, "a fraction of training, in (0, 1)")
        require(self.penalty >= 0, "method.penalty", self.penalty, "0 or more")

    def run(self, net: Net, train: Train) -> None:
        channels, end = Channels(net, train.sample(1)[0]), int(self.until * len(train))
        channels.require_scales("early_bird")
        queue = Queue(channels.everything().repeat(self.masks, 1))
        net.embed({next(iter(net.weights)): queue})  # so that it is saved with the net
        for t in train.steps():
            if queue.found:
                continue
            if (t and t % train.epoch_steps == 0) or t == end:
                mask = channels.best(channels.mean_scale(), 1 - self.sparsity, self.of)
                if queue.agrees(mask, self.distance) or t == end:
                    log.info(
                        "channels chosen at step %d%s",
                        t,
                        " (they have not settled)" if t == end else "",
                    )
                    channels.keep(mask)
                    queue.found.fill_(True)
            channels.pull(self.penalty)
        net.maps.clear()


class Queue(nn.Module):
    """The last masks. As a map it changes nothing."""

    masks: Tensor
    seen: Tensor
    found: Tensor

    def __init__(self, masks: Tensor) -> None:
        super().__init__()
        self.register_buffer("masks", masks)
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("found", torch.zeros(1, dtype=torch.bool))

    def agrees(self, mask: Tensor, distance: float) -> bool:
        """Put a mask in, and the oldest out. Do the others, as many as fit, all agree with it?"""
        self.masks.copy_(torch.cat((self.masks[1:], mask[None])))
        self.seen += 1
        apart = (self.masks != mask).double().mean(1)
        return int(self.seen) >= len(self.masks) and bool((apart <= distance).all())

    def forward(self, theta: Tensor) -> Tensor:
        return theta
