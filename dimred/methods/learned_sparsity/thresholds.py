"""Learned thresholds: STR and dynamic sparse training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimred.fields import NotNegative
from dimred.methods.learned_sparsity.base import LearnedSparsity
from dimred.net import Net
from dimred.net.transforms import Transform, straight_through
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class STR(LearnedSparsity):
    """Soft threshold reparameterisation: learn one threshold for each layer, and shrink all of its
    weights by it.

        E(psi) = sign(psi) max(0, |psi| - sigmoid(s)),  one s for each weight tensor;
        margin |psi| - sigmoid(s)

    The weight decay of s controls the sparsity: it pulls s to 0, and so the thresholds to 1/2. In
    the paper s has the weight decay of the weights (start -3200, 2e-5 a step for 90 % of ResNet-50
    in 100 epochs).

    Trains: all weights and a threshold for each tensor, after the soft phase d weights; stores:
    their positions; needs: dense weights and gradients in the soft phase.

    Kusupati, Ramanujan, Somani, Wortsman, Jain, Kakade, Farhadi, ICML 2020 (arXiv:2002.03231).
    """

    initial_s: float = -5.0  # the initial value of every s
    weight_decay: NotNegative = 12.0  # of s, over the whole soft phase

    strength: ClassVar[str] = "weight_decay"

    def run(self, net: Net, train: Train) -> None:
        thresholds = {
            name: SoftThreshold(w.param, self.initial_s) for name, w in net.weights.items()
        }
        net.add_transforms(thresholds, decay=self.per_step(train, self.weight_decay))
        train(0, self.stop(train))
        self.prune_and_finetune(
            net,
            train,
            {name: thresholds[name].margin(theta) for name, theta in net.dense_weights().items()},
        )


class SoftThreshold(Transform):
    counted_as = "thresholds"

    def __init__(self, weight: Tensor, start: float) -> None:
        super().__init__()
        self.s = nn.Parameter(weight.new_full((1,), start))

    def forward(self, theta: Tensor) -> Tensor:
        return theta.sign() * F.relu(theta.abs() - self.s.sigmoid())

    @torch.no_grad()
    def margin(self, theta: Tensor) -> Tensor:
        return theta.abs() - self.s.sigmoid()


@dataclass(frozen=True, kw_only=True)
class DST(LearnedSparsity):
    """Dynamic sparse training with trainable thresholds: learn a threshold for each neuron or
    filter, and set smaller weights to zero.

        E(psi) = psi * step(|psi| - tau_row);  loss + alpha * sum exp(-tau)

    margin: |psi| where it exceeds tau_row, else |psi| - tau_row.

    The derivative of the step is approximated by 2 - 4|x| for |x| <= 0.4, 0.4 for 0.4 < |x| <= 1,
    and 0 beyond. When at most 1 % of a layer's weights remain, its thresholds are reset to 0. alpha
    controls the sparsity (the official code has 5e-4 a step for LeNets, 5e-6 for VGG-16).
    Thresholds have no weight decay.

    Trains: all weights and a threshold for each neuron, after the soft phase d weights; stores:
    their positions; needs: dense weights and gradients in the soft phase.

    Liu, Xu, Shi, Cheung, So, ICLR 2020 (arXiv:2005.06870).
    """

    alpha: NotNegative = 0.6

    strength: ClassVar[str] = "alpha"

    def run(self, net: Net, train: Train) -> None:
        alpha = self.per_step(train, self.alpha)
        thresholds = {name: RowThresholds(w.param, alpha) for name, w in net.weights.items()}
        net.add_transforms(thresholds, decay=0.0)
        for _ in train.steps(0, self.stop(train)):
            for name, theta in net.dense_weights().items():
                thresholds[name].reset_if_closed(theta)
        self.prune_and_finetune(
            net,
            train,
            {name: thresholds[name].margin(theta) for name, theta in net.dense_weights().items()},
        )


class RowThresholds(Transform):
    counted_as = "thresholds"

    def __init__(self, weight: Tensor, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        # one threshold for each row, broadcast over its inputs
        self.tau = nn.Parameter(weight.new_zeros(len(weight), *[1] * (weight.dim() - 1)))

    def forward(self, theta: Tensor) -> Tensor:
        return theta * step(theta.abs() - self.tau)

    def penalty(self, theta: Tensor) -> Tensor:
        return self.alpha * (-self.tau).exp().sum()

    @torch.no_grad()
    def margin(self, theta: Tensor) -> Tensor:
        # weights above their threshold rank by magnitude, and above all weights below it
        return torch.where(theta.abs() > self.tau, theta.abs(), theta.abs() - self.tau)

    @torch.no_grad()
    def reset_if_closed(self, theta: Tensor) -> None:
        # an (almost) empty layer passes no signal on: all of its weights are opened again
        self.tau.mul_((theta.abs() > self.tau).to(theta.dtype).mean() > 0.01)


def step(x: Tensor) -> Tensor:
    """1 where x > 0, else 0; the derivative is that of a long-tailed higher-order estimator."""
    size = x.detach().abs()
    slope = torch.where(size <= 0.4, 2 - 4 * size, 0.4 * (size <= 1).to(x.dtype))
    return straight_through((x > 0).to(x.dtype), slope * x)
