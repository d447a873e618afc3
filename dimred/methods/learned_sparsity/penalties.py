"""Learned penalties: HALO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from dimred.fields import NotNegative
from dimred.methods.learned_sparsity.base import LearnedSparsity
from dimred.net import Net
from dimred.net.transforms import Transform
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class HALO(LearnedSparsity):
    """Hierarchical adaptive lasso: an L1 penalty with a learned strength for every weight, which
    shrinks large weights less.

        loss + xi * sum |psi_j| / lambda_j^2 + penalty * sum |lambda_j|,  lambda_j from 1;
        margin |psi|

    Minimised over lambda, the two terms are 1.5 penalty (2 xi |psi| / penalty)^(1/3), a concave
    penalty. xi and the penalty (psi in the paper) control how small weights become. No weight
    becomes exactly zero in training; those smaller than `tolerance` count as pruned. The paper
    prunes at the end without fine-tuning (soft_until=1), covers convolutions alone, and has xi =
    penalty = 1e-8 a step for 160 epochs. The official code counts weights below 1e-5 as zero, which
    requires a small learning rate at the end.

    Trains: all weights and a lambda for each, after the penalty d weights; stores: their positions;
    needs: dense weights, lambdas and their gradients while there is a penalty.

    Seto, Wells, Zhang, 2020 (arXiv:2008.10183).
    """

    xi: NotNegative = 0.4
    penalty: NotNegative = 0.1
    tolerance: NotNegative = 0.003  # smaller |psi| count as pruned

    strength: ClassVar[str] = "xi"

    def used(self, net: Net) -> int:
        return sum(
            int((theta.abs() > self.tolerance).sum()) for theta in net.dense_weights().values()
        )

    def run(self, net: Net, train: Train) -> None:
        xi, strength = self.per_step(train, self.xi), self.per_step(train, self.penalty)
        net.add_transforms(
            {name: AdaptiveLasso(w.param, xi, strength) for name, w in net.weights.items()}
        )
        train(0, self.stop(train))
        self.prune_and_finetune(
            net, train, {name: theta.abs() for name, theta in net.dense_weights().items()}
        )


class AdaptiveLasso(Transform):
    """The identity, with the adaptive L1 penalty."""

    counted_as = "penalty weights"

    def __init__(self, weight: Tensor, xi: float, strength: float) -> None:
        super().__init__()
        self.xi, self.strength = xi, strength
        self.scale = nn.Parameter(torch.ones_like(weight, requires_grad=False))  # lambda

    def forward(self, theta: Tensor) -> Tensor:
        return theta

    def penalty(self, theta: Tensor) -> Tensor:
        return (
            self.xi * (theta.abs() / self.scale**2).sum() + self.strength * self.scale.abs().sum()
        )
