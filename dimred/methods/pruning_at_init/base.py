"""Shared code of pruning at initialisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from dimred.fields import Checked, Sparsity
from dimred.net import Net
from dimred.net.coordinates import Supports
from dimred.scores import Batch, Scores, balanced, masked
from dimred.select.ablations import Ablation, inverted, reinitialise, shuffled
from dimred.select.allocations import Allocation, Budget, Global
from dimred.select.topk import topk
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class PruningAtInit(Checked):
    """Score every weight, train those with the highest scores, and leave the others at zero or at
    their initial value.

    All methods of this family have the ablations of dimred/select/ablations.py.
    """

    sparsity: Sparsity = 0.9
    allocation: Allocation = Global()
    base: Literal["zero", "init"] = "zero"
    ablation: Ablation = "none"

    def scores(self, net: Net, train: Train) -> Scores:
        raise NotImplementedError

    def choose(self, net: Net, train: Train) -> Supports:
        return self.best(self.scores(net, train), self.allocation(net, 1 - self.sparsity))

    def best(self, scores: Scores, budget: Budget, among: Supports | None = None) -> Supports:
        """The weights in the supports `among` with the highest scores (the lowest, if inverted)."""
        scores = inverted(scores) if self.ablation == "invert" else scores
        return topk(masked(scores, among, -torch.inf) if among else scores, budget)

    def prune(self, net: Net, train: Train) -> None:
        supports = self.choose(net, train)
        net.keep(
            shuffled(net, supports) if self.ablation == "shuffle" else supports, base=self.base
        )
        if self.ablation == "reinit":
            reinitialise(net)

    def run(self, net: Net, train: Train) -> None:
        train.once(lambda: self.prune(net, train))
        train()


@dataclass(frozen=True, kw_only=True)
class Scored(PruningAtInit):
    """A method that scores weights on training examples."""

    # score with crops and flips, as in training
    augment: bool = False


def batches(train: Train, examples: int, count: int, augment: bool) -> list[Batch]:
    """Batches of training examples to score with. They do not overlap, as long as there are enough
    examples."""
    there = train.data.sizes["train"]
    images, labels = train.sample(max(examples, min(examples * count, there)), augment)
    rows = [
        torch.arange(i * examples, (i + 1) * examples, device=images.device) % len(images)
        for i in range(count)
    ]
    return [(images[row], labels[row]) for row in rows]


def balanced_batch(train: Train, per_class: int, augment: bool) -> Batch:
    """A batch of `per_class` examples of each class, from a sample of eight times as many examples
    as needed; fewer of a class that is rarer than that."""
    # a random sample has few examples of some classes; one of eight times the size has enough
    pool = min(8 * per_class * train.data.classes, train.data.sizes["train"])
    return balanced(train.sample(pool, augment), per_class)
