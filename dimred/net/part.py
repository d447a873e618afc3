"""What of a model is computed, where the rest is not needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from dimred.net.net import Net

Compute = Callable[[Tensor], Tensor]


class Part(ABC):
    """A part of a net's model that gives the logits of all of it:

    with net.weights_in_place(part.thetas(net)) as model:
        logits = part.of(model)(inputs)
    """

    @abstractmethod
    def thetas(self, net: Net) -> Mapping[str, Tensor] | None:
        """The thetas to compute with; None for those of the net."""

    @abstractmethod
    def of(self, model: nn.Module) -> Compute:
        """The part of the model. It may be used while the weights are in place."""


def part_of(model: nn.Module, part: Part | None) -> Compute:
    return part.of(model) if part else model


def nearly_equal(one: Tensor, other: Tensor) -> bool:
    """Whether two computations of the same numbers differ by their rounding alone."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool((one - other).abs().max() <= ROUNDING * one.abs().max())


#: of the largest number
ROUNDING = 1e-4
