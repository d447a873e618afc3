"""Bernoulli supermasks: random masks with trained probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dimred.fields import Positive
from dimred.methods.supermasks.base import Mask, Supermask, Weights, weights_of
from dimred.methods.supermasks.edge_popup import best_of, counts_of_layers
from dimred.net import Net
from dimred.net.transforms import straight_through
from dimred.scores import generator
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class BernoulliSupermask(Supermask):
    """Bernoulli supermask: train the probability that each weight is used, with a mask drawn at
    every step; weights are not trained.

        E(theta_0) = theta_0 * m * D / sum m,  m ~ Bernoulli(p),  p = sigmoid(score);  dm/dp = 1

    D / sum m is the paper's dynamic rescaling (rescale). In evaluation, and at the end, m is the k
    most probable weights of each layer, where k follows from the sparsity and the allocation; the
    official code draws masks in evaluation too, and reports the mean of ten draws. Probabilities
    start at the density of their layer, and after every step all scores of a layer are shifted so
    that sum p stays k (ours). In the paper they start at one half, and the density emerges. Signed
    constants are +- He's standard deviation; the official code takes the standard deviation of the
    layer's initial weights.

    Trains: a score for every weight, no weight, bias or norm; stores: instead of them, the mask and
    the seed of the weights; needs: dense weights, scores and their gradients in every step.

    Zhou, Lan, Liu, Yosinski, NeurIPS 2019 (arXiv:1905.01067), sec. 5.
    """

    rescale: bool = True
    score_lr_scale: Positive = 1000.0  # score learning rate / recipe.lr

    def search(self, net: Net, train: Train, masks: Mapping[str, Mask]) -> None:
        for t in train.steps():
            for mask in masks.values():
                assert isinstance(mask, Bernoulli)
                mask.advance(t + 1)

    def add_masks(self, net: Net) -> dict[str, Bernoulli]:
        """Freeze all parameters, and add scores that are equal within each layer."""
        counts = counts_of_layers(net, self.allocation(net, 1 - self.sparsity))
        net.freeze(dict.fromkeys(net.parameters()))
        seeds = torch.randint(2**62, (len(counts),), generator=generator(net, "bernoulli")).tolist()
        masks = {
            name: Bernoulli(w.param, counts[name], self.weights, self.rescale, seed)
            for (name, w), seed in zip(net.weights.items(), seeds, strict=True)
        }
        net.add_transforms(masks, lr=self.score_lr_scale, decay=0.0)
        return masks


class Bernoulli(Mask):
    """A mask drawn anew in every step; in evaluation mode, the k largest scores."""

    uniform: Tensor

    def __init__(self, weight: Tensor, k: int, weights: Weights, rescale: bool, seed: int) -> None:
        super().__init__()
        p = min(max(k / weight.numel(), 0.001), 0.999)  # so that the score is finite
        score = torch.full_like(weight, math.log(p / (1 - p)), requires_grad=False)
        self.score = nn.Parameter(score)
        self.k, self.weights, self.rescale, self.seed = k, weights, rescale, seed
        # drawn at the pause of the step before, since a captured step cannot draw from a generator
        # of its own; saved, so that a resumed run draws the same masks
        self.register_buffer("uniform", self.drawn(0))

    @torch.no_grad()
    def advance(self, step: int) -> None:
        """Choose the draw of the next step, and shift all scores by a Newton step towards sum p =
        k."""
        p = torch.sigmoid(self.score)
        shift = (p.sum() - self.k) / (p * (1 - p)).sum().clamp(min=1e-6)
        # limited, because the slope sum p (1 - p) vanishes where all probabilities are near 0 or 1
        self.score.sub_(shift.clamp(-1, 1))
        self.uniform.copy_(self.drawn(step))

    def drawn(self, step: int) -> Tensor:
        """U(0, 1) for every weight, with a seed for each step."""
        device = self.score.device
        draws = torch.Generator(device).manual_seed(self.seed + step)
        return torch.rand(self.score.shape, generator=draws, device=device)

    def mask(self) -> Tensor:
        """True where a weight is used."""
        score = self.score.detach()
        if not self.training:
            return best_of(score, self.k)
        return self.uniform < torch.sigmoid(score)

    def forward(self, theta: Tensor) -> Tensor:
        mask = straight_through(self.mask().to(theta.dtype), torch.sigmoid(self.score))
        scale = mask.numel() / mask.sum().clamp(min=1) if self.rescale else 1.0
        return scale * weights_of(theta, self.weights) * mask
