"""Continuous sparsification."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from dimred.fields import Checked, Count, NotNegative, Sparsity, Step, at_least
from dimred.methods.own_density import report_own_density
from dimred.net import Net
from dimred.net.transforms import Transform
from dimred.select.allocations import Allocation, Global
from dimred.select.topk import topk
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class ContinuousSparsification(Checked):
    """Continuous sparsification: train the weights with a soft mask that hardens during training,
    then rewind the remaining weights.

        E(psi) = psi * sigmoid(beta s) / sigmoid(s_0);  beta = beta_T^(t / T);
        loss + penalty * sum sigmoid(beta s)

    Between rounds s <- min(beta_T s, s_0) and beta <- 1, so that only pruned weights stay pruned.
    The paper's ticket is the weights with s > 0, and s_0 controls its sparsity. Here the ticket is
    the weights with the largest s, as many as the sparsity leaves. The result's `measures` have the
    density of the paper's ticket (`own_density`).

    Trains: all weights and a score for each, d weights in the end; stores: their positions; needs:
    dense weights, scores and their gradients until the last round, and the weights to rewind to.

    Savarese, Silva, Maire, NeurIPS 2020 (arXiv:1912.04427).
    """

    sparsity: Sparsity = 0.9
    allocation: Allocation = Global()
    rounds: Count = 3
    rewind_step: Step = 0  # the step to rewind to
    initial_score: float = -0.01  # s_0
    final_beta: Annotated[float, at_least(1)] = 200.0  # beta_T
    penalty: NotNegative = 1e-8  # on the number of weights

    def run(self, net: Net, train: Train) -> None:
        masks = {
            name: SoftMask(w.param, self.initial_score, self.penalty)
            for name, w in net.weights.items()
        }
        # s has a penalty of its own
        net.add_transforms(masks, decay=0.0)
        self.anneal(train, masks, 0, self.rewind_step)
        ticket = train.snapshot()
        self.anneal(train, masks, self.rewind_step, len(train))
        for _ in train.rounds(range(1, self.rounds)):
            for mask in masks.values():
                mask.reset()
            self.anneal(train, masks, 0, len(train))
        chosen = topk(
            {name: mask.s.detach() for name, mask in masks.items()},
            self.allocation(net, 1 - self.sparsity),
        )
        train.once(
            lambda: report_own_density(
                net, used(masks), 1 - self.sparsity, "Choose a smaller method.initial_score"
            )
        )
        net.keep(chosen)
        net.restore(ticket)
        net.remove_transforms()
        # a hardened mask is 1 / sigmoid(s_0), not 1: the ticket trains at the scale of the search
        net.add_transforms({name: Times(masks[name].scale) for name in masks})
        train(self.rewind_step)
        net.keep(net.supports, merge=True)

    def anneal(self, train: Train, masks: Mapping[str, SoftMask], start: int, stop: int) -> None:
        for t in train.steps(start, stop):
            for mask in masks.values():
                mask.beta.fill_(self.final_beta ** ((t + 1) / len(train)))


def used(masks: Mapping[str, SoftMask]) -> int:
    """The number of weights in the paper's ticket, s > 0."""
    return sum(int((mask.s > 0).sum()) for mask in masks.values())


class SoftMask(Transform):
    counted_as = "gates"
    beta: Tensor

    def __init__(self, weight: Tensor, start: float, strength: float) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.full_like(weight, start, requires_grad=False))
        self.register_buffer("beta", weight.new_ones(()))
        self.start, self.scale, self.strength = start, 1 + math.exp(-start), strength

    def forward(self, theta: Tensor) -> Tensor:
        return self.scale * torch.sigmoid(self.beta * self.s) * theta

    def penalty(self, theta: Tensor) -> Tensor:
        return self.strength * torch.sigmoid(self.beta * self.s).sum()

    @torch.no_grad()
    def reset(self) -> None:
        """Soften the mask again, except where weights are pruned."""
        # a negative s becomes more negative, so the weight stays pruned; a positive s returns to
        # s_0
        self.s.mul_(self.beta).clamp_(max=self.start)
        self.beta.fill_(1.0)


class Times(Transform):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, theta: Tensor) -> Tensor:
        return self.factor * theta
