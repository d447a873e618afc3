"""Signed supermasks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from dimred.fields import NotNegative, Positive
from dimred.methods.supermasks.base import Weights, uniform, weights_of
from dimred.methods.supermasks.edge_popup import EdgePopup, TopK, counts_of_layers
from dimred.net import Net
from dimred.net.transforms import straight_through


@dataclass(frozen=True, kw_only=True)
class SignedSupermask(EdgePopup):
    """Signed supermask: train a score for every weight that keeps it, flips its sign or prunes it;
    weights are not trained.

        E(theta_0) = theta_0 * m,  m = sign(score) where |score| > threshold, else 0;
        dL/dscore = dL/dE * theta_0

    With the paper's fixed threshold (0.01), the weight decay of scores controls the sparsity.
    Without one (threshold=null), the k largest |score| of each layer are used, where k follows from
    the sparsity and the allocation; the official code has a similar variant. Scores start as
    Glorot's uniform weights do. The paper's constant, sqrt(1.5) times He's standard deviation, is
    that of scale_fan at a density of 2/3.

    Trains: a score for every weight, no weight, bias or norm; stores: instead of them, a mask of
    signs and the seed of the weights; needs: dense weights, scores and their gradients in every
    step.

    Koster, Grothe, Rettinger, ICLR 2022 (arXiv:2201.13361).
    """

    threshold: NotNegative | None = None
    score_lr_scale: Positive = 0.2  # score learning rate / recipe.lr

    def add_masks(self, net: Net) -> dict[str, Ternary]:
        """Freeze all parameters, and train scores, U(-1, 1) * sqrt(6 / (fan in + fan out))."""
        counts = counts_of_layers(net, self.allocation(net, 1 - self.sparsity))
        net.freeze(dict.fromkeys(net.parameters()))
        masks = {
            name: Ternary(
                score * glorot(score),
                counts[name],
                self.weights,
                self.scale_fan,
                self.threshold,
            )
            for name, score in uniform(net, -1, 1).items()
        }
        net.add_transforms(masks, lr=self.score_lr_scale)
        return masks


def glorot(weight: Tensor) -> float:
    fan_out = weight[:, 0].numel() if weight.dim() > 1 else 1
    return math.sqrt(6 / (weight[0].numel() + fan_out))


class Ternary(TopK):
    """A mask of signs: of the k largest |score|, or of those above a threshold. The gradient with
    respect to the score is straight-through."""

    def __init__(
        self, score: Tensor, k: int, weights: Weights, scale_fan: bool, threshold: float | None
    ) -> None:
        super().__init__(score, k, weights, scale_fan)
        self.threshold = threshold

    def mask(self) -> Tensor:
        """-1, 0 or 1."""
        score = self.score.detach()
        # without a threshold, the sparsity is exact; with one, it emerges from training
        return score.sign() * (
            super().mask() if self.threshold is None else score.abs() > self.threshold
        )

    def forward(self, theta: Tensor) -> Tensor:
        return (
            self.scale * weights_of(theta, self.weights) * straight_through(self.mask(), self.score)
        )
