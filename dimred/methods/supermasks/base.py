"""Shared code of supermasks: scores of frozen weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dimred.fields import Checked, Sparsity
from dimred.net import Net
from dimred.net.transforms import Transform
from dimred.scores import generator
from dimred.select.allocations import ERK, Allocation
from dimred.training.loop import Train

#: the frozen weights under the mask: as initialised, or their signs times He's standard deviation
Weights = Literal["init", "signed_constant"]


def weights_of(theta: Tensor, weights: Weights) -> Tensor:
    return theta if weights == "init" else theta.sign() * math.sqrt(2 / theta[0].numel())


def uniform(net: Net, low: float, high: float) -> dict[str, Tensor]:
    """Draws from U(low, high) for every covered weight."""
    draws = generator(net, "score")
    return {
        name: torch.empty(w.param.shape).uniform_(low, high, generator=draws).to(w.param)
        for name, w in net.weights.items()
    }


class Mask(Transform):
    """A mask determined by trained scores."""

    counted_as = "scores"

    def mask(self) -> Tensor:
        """Nonzero where a weight is used."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Supermask(Checked):
    """Train a mask of frozen weights, and keep the masked weights."""

    sparsity: Sparsity = 0.9
    allocation: Allocation = ERK()
    weights: Weights = "signed_constant"

    def run(self, net: Net, train: Train) -> None:
        masks = self.add_masks(net)
        self.search(net, train, masks)
        # in evaluation mode a random mask is that of the most probable weights
        used = {name: each.eval().mask() for name, each in masks.items()}
        net.keep(
            {name: mask.view(-1).nonzero().view(-1) for name, mask in used.items()}, merge=True
        )

    def add_masks(self, net: Net) -> Mapping[str, Mask]:
        """Freeze all parameters, and add a mask to each covered weight."""
        raise NotImplementedError

    def search(self, net: Net, train: Train, masks: Mapping[str, Mask]) -> None:
        train()
