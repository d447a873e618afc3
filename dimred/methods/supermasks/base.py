"""What strong tickets share: scores of weights that do not train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dimred.net import Net
from dimred.scores import generator
from dimred.select.allocate import Allocation
from dimred.training.loop import Train

#: the weights that a mask is looked for in: as initialised, or their signs times He's standard
#: deviation
Weights = Literal["init", "signed_constant"]


def weights_of(theta: Tensor, weights: Weights) -> Tensor:
    return theta if weights == "init" else theta.sign() * math.sqrt(2 / theta[0].numel())


def uniform(net: Net, low: float, high: float) -> dict[str, Tensor]:
    """U(low, high) for every covered weight."""
    draws = generator(net, "score")
    return {
        name: torch.empty(w.param.shape).uniform_(low, high, generator=draws).to(w.param)
        for name, w in net.weights.items()
    }


@dataclass(frozen=True)
class Supermask:
    """Train a mask of weights that are never trained, and keep what it makes of them."""

    sparsity: float
    allocation: Allocation
    weights: Weights

    def run(self, net: Net, train: Train) -> None:
        self.search(net, train)
        net.merge_transforms(
            {
                name: each.eval().mask().view(-1).nonzero().view(-1)  # type: ignore[operator]
                for name, each in net.transforms.items()
            }
        )

    def search(self, net: Net, train: Train) -> None:
        self.add_masks(net)
        train()

    def add_masks(self, net: Net) -> None:
        """Freeze all there is, and give weights their masks."""
        raise NotImplementedError
