"""Edge-popup and IterRand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from dimred.errors import UserError
from dimred.fields import Fraction, Period
from dimred.methods.supermasks.base import Mask, Supermask, Weights, uniform, weights_of
from dimred.net import Net
from dimred.net.transforms import straight_through
from dimred.scores import generator, permuted
from dimred.select.allocations import Budget
from dimred.select.topk import largest
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class EdgePopup(Supermask):
    """Edge-popup: train a score for every weight and use the weights with the highest scores of
    each layer; weights are not trained.

        E(theta_0) = theta_0 * [|score| among the k largest of its layer];
        dL/d|score| = dL/dE * theta_0 for all weights (straight-through)

    Scores are ranked by absolute value, as in the official code. Weights can be signed constants
    (+- He's standard deviation), the better choice of the paper; scale_fan divides them by the
    square root of the density. Densities near one half work best. The paper keeps the same fraction
    of every layer (allocation=uniform), which at 98 % sparsity leaves two weights to each class of
    LeNet-300-100; ERK keeps more of small layers.

    Trains: a score for every weight, no weight, bias or norm; stores: instead of them, the mask and
    the seed of the weights; needs: dense weights, scores and their gradients in every step.

    Ramanujan, Wortsman, Kembhavi, Farhadi, Rastegari, CVPR 2020 (arXiv:1911.13299).
    """

    scale_fan: bool = True

    signed: ClassVar[bool] = False  # whether scores are ranked with their signs

    def add_masks(self, net: Net) -> Mapping[str, TopK]:
        """Freeze all parameters, and train scores, U(-1, 1) / sqrt(fan in)."""
        counts = counts_of_layers(net, self.allocation(net, 1 - self.sparsity))
        net.freeze(dict.fromkeys(net.parameters()))
        masks = {
            name: TopK(
                score / math.sqrt(score[0].numel()),
                counts[name],
                self.weights,
                self.scale_fan,
                self.signed,
            )
            for name, score in uniform(net, -1, 1).items()
        }
        net.add_transforms(masks)
        return masks


def counts_of_layers(net: Net, budget: Budget) -> Mapping[str, int]:
    """The number of weights to use in each layer. UserError if the allocation gives only one number
    for all layers together."""
    if not isinstance(budget, Mapping):
        raise UserError(
            "this method ranks scores within each layer, and allocation=global ranks all layers "
            "together. Choose another allocation, such as allocation=uniform or allocation=erk"
        )
    return budget


def best_of(score: Tensor, k: int) -> Tensor:
    """A mask that is True at the k largest scores; among equals the first positions win."""
    if score.is_cuda:
        return best_on_device(score, k)
    mask = torch.zeros_like(score, dtype=torch.bool)
    mask.view(-1)[largest(score.view(-1), k)] = True
    return mask


def best_on_device(score: Tensor, k: int) -> Tensor:
    """The same, without waiting for the device as `largest` does, so that a step can be captured.
    On a CPU it takes longer."""
    n = score.numel()
    if not 0 < k < n:
        return torch.full_like(score, k > 0, dtype=torch.bool)
    threshold = score.flatten().kthvalue(n - k + 1).values
    above, ties = score > threshold, score == threshold
    rank = ties.flatten().cumsum(0).view_as(ties)
    return above | (ties & (rank <= k - above.sum()))


class TopK(Mask):
    """A mask of the k largest |score|, or of the k largest scores if `signed`, with a
    straight-through gradient to the ranked values."""

    def __init__(
        self, score: Tensor, k: int, weights: Weights, scale_fan: bool, signed: bool = False
    ) -> None:
        super().__init__()
        self.score, self.k, self.weights, self.signed = nn.Parameter(score), k, weights, signed
        # 1 / sqrt(density) gives a neuron's output the variance that it has with all inputs
        self.scale = math.sqrt(score.numel() / max(1, k)) if scale_fan else 1.0

    def ranked(self) -> Tensor:
        return self.score if self.signed else self.score.abs()

    def mask(self) -> Tensor:
        """True at the k largest."""
        return best_of(self.ranked().detach(), self.k)

    def forward(self, theta: Tensor) -> Tensor:
        mask = straight_through(self.mask().to(theta.dtype), self.ranked())
        return self.scale * weights_of(theta, self.weights) * mask


@dataclass(frozen=True, kw_only=True)
class IterRand(EdgePopup):
    """Iterative randomisation: edge-popup that redraws some of the unused weights at regular
    intervals.

        every randomize_every steps: theta_i ~ initial distribution with probability r,
        for all i outside the mask

    Scores are ranked with their signs, as in the official code (its edge-popup ranks absolute
    values). A new value is drawn from the initial values of the layer. The paper redraws every 300
    of 39,100 steps.

    Trains: a score for every weight, no weight, bias or norm; stores: the weights in use and their
    positions (the mask and a seed alone, if none of them was redrawn); needs: dense weights, scores
    and their gradients in every step.

    Chijiwa, Yamaguchi, Ida, Umakoshi, Inoue, NeurIPS 2021 (arXiv:2106.09269), alg. 1.
    """

    weights: Weights = "init"
    randomize_every: Period = 0.0077  # steps, or a fraction of training
    randomize_rate: Fraction = 0.1  # r, the probability that an unused weight is redrawn

    signed: ClassVar[bool] = True

    def search(self, net: Net, train: Train, masks: Mapping[str, Mask]) -> None:
        due = train.every(self.randomize_every)
        for t in train.steps():
            if due(t):
                self.redraw(net, masks)

    @torch.no_grad()
    def redraw(self, net: Net, masks: Mapping[str, Mask]) -> None:
        draws, initial = generator(net, "redraw"), net.initial()
        now = {name: theta.clone() for name, theta in net.dense_weights().items()}
        fresh = permuted({name: initial[name].to(theta) for name, theta in now.items()}, draws)
        # net.assign changes trained weights alone, so the frozen ones are trained for a moment
        net.keep(dict.fromkeys(net.weights))
        for name, theta in now.items():
            chosen = torch.rand(theta.shape, generator=draws).to(theta.device) < self.randomize_rate
            chosen &= ~masks[name].mask()
            net.assign({name: fresh[name].where(chosen, theta)})
        net.freeze(dict.fromkeys(net.weights))
