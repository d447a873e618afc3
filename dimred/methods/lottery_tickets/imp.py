"""Iterative magnitude pruning."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dimred.errors import UserError, require
from dimred.fields import Checked, PositiveFraction, Sparsity, Step
from dimred.net import Net
from dimred.net.coordinates import Supports
from dimred.net.layers import last_matrix
from dimred.scores import Scores, random_scores, trained_only
from dimred.select.allocations import Allocation, Global
from dimred.select.topk import rounded_down, topk
from dimred.training.loop import Train

MOST_ROUNDS = 1000  # the most rounds of training, pruning and rewinding
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


@dataclass(frozen=True, kw_only=True)
class IMP(Checked):
    """Iterative magnitude pruning: train, prune a fraction of the remaining weights, rewind, and
    repeat.

        density after round k = max(1 - s, (1 - prune_rate)^k);
        then psi <- theta_rewind[support], or only lr goes back

    rewind=weights rewinds the weights, norms, momentum and learning rate to rewind_step; rewind=lr
    rewinds only the learning rate. rewind=none is fine-tuning: as many steps as from rewind_step to
    the end, all at the last learning rate. The criteria and the values of pruned weights are those
    of Zhou et al.; "init" is the start of training, whatever rewind_step is.

    Three switches follow official codes. By default a round keeps round(density D) weights; with
    rounding=floor it keeps the remaining number times 1 - prune_rate, rounded down (open_lth). With
    reset_momentum every training from rewind_step on, including the first, begins without momentum
    (open_lth); by default momentum rewinds with the weights. With output_at_half_rate the fraction
    pruned from the output layer is half the fraction pruned overall, and the other layers are
    pruned more (Frankle, Carbin).

    Trains: all weights in the first round, a fifth fewer in each, d in the last; stores: their
    positions; needs: dense weights and gradients in the first round, and the weights to rewind to.

    Frankle, Carbin, ICLR 2019 (arXiv:1803.03635); rewinding: Frankle et al., ICML 2020
    (arXiv:1912.05671); learning rate rewinding, fine-tuning: Renda et al., ICLR 2020
    (arXiv:2003.02389); criteria, pruned weights: Zhou et al., NeurIPS 2019 (arXiv:1905.01067)."""

    sparsity: Sparsity = 0.9
    allocation: Allocation = Global()
    # fraction of the remaining weights pruned in every round; 1 is one-shot
    prune_rate: PositiveFraction = 0.2
    rewind_step: Step = 0  # the step to rewind to
    rewind: Literal["weights", "lr", "none"] = "weights"
    criterion: Criterion = "large_final"  # the score of the weights to keep
    # the value of pruned weights; zero_or_init: zero where training moved them towards zero
    pruned_value: Literal["zero", "init", "zero_or_init"] = "zero"
    rounding: Literal["nearest", "floor"] = "nearest"
    reset_momentum: bool = False
    output_at_half_rate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (rounds := self.rounds()) > MOST_ROUNDS:
            enough = 1.1 * (1 - (1 - self.sparsity) ** (1 / MOST_ROUNDS))
            raise UserError(
                f"method.prune_rate={self.prune_rate} reaches sparsity={self.sparsity} in {rounds} "
                f"rounds, each a whole training; {MOST_ROUNDS} are allowed. Choose a larger "
                f"prune_rate: {enough:.2g} is enough, the paper's is 0.2"
            )

    def rounds(self) -> int:
        """The number of prunings: the smallest k with (1 - rate)^k <= 1 - sparsity."""
        if self.sparsity == 0:
            return 0
        return (
            1
            if self.prune_rate == 1
            else math.ceil(math.log1p(-self.sparsity) / math.log1p(-self.prune_rate) - 1e-9)
        )

    def run(self, net: Net, train: Train) -> None:
        train(0, self.rewind_step)
        # a training phase of its own: a resumed run reads it from its file (training/resume.py)
        ticket = train.snapshot()
        self.reset_optimizer(net)
        train(self.rewind_step)
        for left in train.rounds(self.counts_left(net.total)):
            prune(net, self.choose(net, left), self.pruned_value)
            if self.rewind == "weights":
                net.restore(ticket)
            self.reset_optimizer(net)
            train(self.rewind_step, lr_of=len(train) - 1 if self.rewind == "none" else None)

    def reset_optimizer(self, net: Net) -> None:
        """Clear the optimiser's state, if reset_momentum says so."""
        if self.reset_momentum:
            net.optimizer_state.clear()

    def counts_left(self, total: int) -> list[int]:
        """The number of weights that remain after each round."""
        left, counts = total, []
        for k in range(1, self.rounds() + 1):
            if self.rounding == "floor":
                left = rounded_down(max((1 - self.sparsity) * total, (1 - self.prune_rate) * left))
            else:
                left = round(max(1 - self.sparsity, (1 - self.prune_rate) ** k) * total)
            counts.append(left)
        return counts

    def choose(self, net: Net, left: int) -> Supports:
        """The `left` weights with the highest scores."""
        ranks = scores(net, self.criterion)
        if not self.output_at_half_rate:
            return topk(ranks, self.allocation(net, left / net.total))
        name = last_matrix(net)
        require(
            name in net.weights and len(net.weights) > 1,
            "method.output_at_half_rate",
            True,
            f"false where {name}, the output layer, is not covered, or nothing else is",
        )
        trained = {each: w.dim for each, w in net.weights.items()}
        # the fraction pruned from this layer is half of the overall one: (1 - left / trained) / 2
        kept = min(left, round(trained[name] * (1 + left / sum(trained.values())) / 2))
        # the allocation shares the rest among the other layers, as if there were no output layer
        others = copy.copy(net)
        others.weights = {each: w for each, w in net.weights.items() if each != name}
        budget = self.allocation(others, (left - kept) / others.total)
        chosen = dict(topk({each: ranks[each] for each in others.weights}, budget))
        return chosen | dict(topk({name: ranks[name]}, kept))


@torch.no_grad()
def prune(net: Net, supports: Supports, pruned: Literal["zero", "init", "zero_or_init"]) -> None:
    """Train only these supports. Pruned weights become zero or their initial value; with
    "zero_or_init", zero if training has moved them towards zero, else their initial value."""
    if pruned != "zero_or_init":
        net.keep(supports, base=pruned)
        return
    initial, gone = net.initial(), {}
    for name, w in net.weights.items():
        # Zhou et al.: weights that moved towards zero are set to zero, others return to their start
        start = initial[name].to(w.param).view(-1)
        left = w.trained().index_fill(0, supports[name], False)  # type: ignore[arg-type]
        held = torch.where(left, start.where(w.dense().abs() >= start.abs(), 0.0), w.dense())
        net.assign({name: held})
        gone[name] = left.nonzero().view(-1)
    net.freeze(gone)


def scores(net: Net, criterion: Criterion) -> Scores:
    """The criterion's score of each weight; -inf for weights that are no longer trained."""
    if criterion == "random":
        return trained_only(net, random_scores(net))
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
    """The fraction of values that are not larger, in (0, 1]."""
    return (values.argsort(stable=True).argsort() + 1) / max(1, len(values))


#: scores from the final and the initial values of a layer's trained weights (d each); two criteria
#: combine by the smaller rank, because their scales differ
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
