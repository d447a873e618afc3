"""Shared code of learned sparsity: the final pruning to the requested sparsity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dimred.fields import Checked, PositiveFraction, Sparsity
from dimred.methods.own_density import report_own_density
from dimred.net import Net
from dimred.select.allocations import Allocation, Global
from dimred.select.topk import topk
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class LearnedSparsity(Checked):
    """A soft phase, in which the sparsity emerges from training, then exact pruning to the
    requested sparsity by the largest margins, and fine-tuning."""

    sparsity: Sparsity = 0.9
    allocation: Allocation = Global()
    soft_until: PositiveFraction = 0.5  # the end of the soft phase, as a fraction of training

    strength: ClassVar[str]  # the name of the field that controls the sparsity

    def stop(self, train: Train) -> int:
        return round(self.soft_until * len(train))

    def per_step(self, train: Train, strength: float) -> float:
        """The share of a strength in one step: strengths are given for the whole soft phase, so
        that they do not depend on its number of steps."""
        return strength / max(1, self.stop(train))

    @torch.no_grad()
    def used(self, net: Net) -> int:
        """The number of weights that the method itself would keep."""
        return sum(
            int(net.transforms[name](theta).count_nonzero())
            for name, theta in net.dense_weights().items()
        )

    def prune_and_finetune(self, net: Net, train: Train, margins: Mapping[str, Tensor]) -> None:
        """Keep exactly the weights with the largest margins, and train them to the end."""
        density, advice = 1 - self.sparsity, f"Choose a larger method.{self.strength}"
        # once: a resumed run passes here with initial weights, before it loads its checkpoint
        train.once(lambda: report_own_density(net, self.used(net), density, advice))
        chosen = topk(margins, self.allocation(net, density))
        net.keep(chosen, merge=True)
        train(self.stop(train))
