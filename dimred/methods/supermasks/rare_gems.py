"""Rare gems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dimred.fields import Checked, Count, NotNegative, Positive, Sparsity
from dimred.methods.supermasks.base import Weights, uniform, weights_of
from dimred.net import Net
from dimred.net.transforms import Masked, straight_through
from dimred.select.allocations import Allocation, Global
from dimred.select.topk import topk
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class RareGems(Checked):
    """Rare gems: train scores of frozen weights, prune by them, and fine-tune the remaining
    weights.

        E(theta_0) = theta_0 * [p > 1/2] * kept,  p in [0, 1];  loss + penalty * sum p^2;
        prune the smallest p

    The density falls exponentially to the final one, in `rounds` prunings at equal intervals. Then
    all remaining weights train, whatever their p (`unflag` in the official code), together with
    biases and norms.

    Trains: a score for every weight, then d weights; stores: their positions; needs: dense weights,
    scores and their gradients until it fine-tunes.

    Sreenivasan, Sohn, Yang, Grinde, Nagle, Wang, Xing, Lee, Papailiopoulos, NeurIPS 2022
    (arXiv:2202.12002)."""

    sparsity: Sparsity = 0.9
    allocation: Allocation = Global()
    weights: Weights = "signed_constant"
    rounds: Count = 29
    penalty: NotNegative = 0.0001
    finetune_lr_scale: Positive = 1.0  # learning rate of the fine-tuning / recipe.lr

    def run(self, net: Net, train: Train) -> None:
        net.freeze(dict.fromkeys(net.parameters()))
        gems = {name: Gem(p, self.penalty, self.weights) for name, p in uniform(net, 0, 1).items()}
        net.add_transforms(gems, decay=0.0)  # p has a penalty of its own
        times = [j * len(train) // (self.rounds + 1) for j in range(1, self.rounds + 1)]
        for t in train.steps():
            if t in times:
                progress = sum(time <= t for time in times) / self.rounds
                budget = self.allocation(net, (1 - self.sparsity) ** progress)
                for name, kept in topk(
                    {name: gem.rank() for name, gem in gems.items()}, budget
                ).items():
                    gems[name].keep(kept)
        self.start_finetuning(net, gems)
        train.scale_lr(dict.fromkeys(net.parameters(), self.finetune_lr_scale))
        train()

    @torch.no_grad()
    def start_finetuning(self, net: Net, gems: Mapping[str, Gem]) -> None:
        """Train the remaining weights, biases and norms. Weights start from the values that the
        scores were trained on."""
        net.remove_transforms()
        kept = {name: gem.support() for name, gem in gems.items()}
        # first restore the initial values of kept weights, biases and norms, then prune the others
        net.keep({**kept, **dict.fromkeys(net.uncovered)}, base="init")
        net.keep(kept)
        thetas = net.dense_weights()
        net.assign({name: weights_of(theta, self.weights) for name, theta in thetas.items()})


class Gem(Masked):
    """The mask [p > 1/2] of the weights that are not pruned. The forward pass clips p to [0, 1]."""

    counted_as = "scores"

    def __init__(self, p: Tensor, strength: float, weights: Weights) -> None:
        super().__init__(p)
        self.p, self.strength, self.weights = nn.Parameter(p), strength, weights

    def forward(self, theta: Tensor) -> Tensor:
        with torch.no_grad():
            # after an optimiser step p may lie outside [0, 1]
            self.p.clamp_(0, 1)
        mask = straight_through((self.p > 0.5).to(theta.dtype), self.p)
        return super().forward(weights_of(theta, self.weights)) * mask

    def penalty(self, theta: Tensor) -> Tensor:
        return self.strength * (self.p * self.kept).square().sum()

    def rank(self) -> Tensor:
        """p of the remaining weights; -inf at pruned ones."""
        return self.p.detach().masked_fill(~self.kept, -torch.inf)
