"""Top-KAST: sparse forward passes, and less sparse gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dimred.fields import Checked, NotNegative, Period, Sparsity
from dimred.net import Net
from dimred.net.transforms import StraightThroughMask
from dimred.select.allocations import ERK, Allocation
from dimred.select.topk import topk
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class TopKAST(Checked):
    """Top-KAST: the forward pass uses the largest weights, and the gradient updates somewhat more
    of them; both passes are always sparse.

        A = the D largest, B = the D + M largest;  E(theta) = theta on A, dL/dtheta acts on B;
        A and B are chosen again every update_every steps;
        loss + penalty (|theta_A|^2 + |theta_{B \\ A}|^2 / D), with D as a density

    Weights outside B keep their values and may return to B. The penalty is added to the recipe's
    weight decay; its form and strength are from memory. A layer with all weights in A has no
    penalty.

    Trains: D of the density and M more, not always the same; stores: the positions of the D; needs:
    dense weights in memory, which no pass computes with.

    Jayakumar, Pascanu, Rae, Osindero, Elsen, NeurIPS 2020 (arXiv:2106.03517).
    """

    sparsity: Sparsity = 0.9
    allocation: Allocation = ERK()
    exploration: NotNegative = 1.0  # M, as a multiple of D
    update_every: Period = 0.02  # steps, or a fraction of training
    penalty: NotNegative = 1e-4  # strength of the L2 penalty

    def run(self, net: Net, train: Train) -> None:
        sets = {name: TopKASTMask(w.param, self.penalty) for name, w in net.weights.items()}
        net.add_transforms(sets)
        self.choose(net, sets)
        due = train.every(self.update_every)
        for t in train.steps():
            if due(t):
                self.choose(net, sets)
        net.keep({name: each.support() for name, each in sets.items()}, merge=True)

    def choose(self, net: Net, sets: Mapping[str, TopKASTMask]) -> None:
        """Choose A and B by the magnitude of all weights, trained or not."""
        density = 1 - self.sparsity
        size = {name: theta.abs() for name, theta in net.dense_weights().items()}
        used = topk(size, self.allocation(net, density))
        trained = topk(size, self.allocation(net, min(1.0, density * (1 + self.exploration))))
        # held: a weight that leaves B keeps its value, and competes with it at later updates
        net.keep(trained, base="held")
        for name, each in sets.items():
            each.keep(used[name])
            each.set_penalty_weights(trained[name])


class TopKASTMask(StraightThroughMask):
    """theta at `kept` in the forward pass, the gradient of all of theta, and the L2 penalty."""

    weights: Tensor

    def __init__(self, weight: Tensor, strength: float) -> None:
        super().__init__(weight)
        self.strength = strength
        self.register_buffer("weights", torch.zeros_like(weight, requires_grad=False))

    @torch.no_grad()
    def set_penalty_weights(self, trained: Tensor | None) -> None:
        """Set the factor of each square in the penalty: 1 at `kept`, 1 / D at the other trained
        weights."""
        self.weights.zero_()
        # 1 / D is larger than 1: weights outside A decay faster, and enter A only against this
        # decay
        density = self.kept.double().mean().item()
        if 0 < density < 1:
            self.weights.view(-1)[slice(None) if trained is None else trained] = 1 / density
            self.weights[self.kept] = 1.0

    def penalty(self, theta: Tensor) -> Tensor:
        return self.strength * (self.weights * theta.square()).sum()
