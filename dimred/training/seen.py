"""Whether a net's coordinates have changed since they were last looked at."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_

from torch import nn

from dimred.net import Net


class Seen:
    """The coordinates of a net at the last `look`, with a few numbers of the caller's."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._numbers: tuple[int, ...] | None = None
        # the parameters themselves are kept, so that no other gets their identity
        self._psi: list[nn.Parameter] = []

    def look(self, *numbers: int) -> None:
        self._numbers, self._psi = self._all(numbers), self._coordinates()

    def forget(self) -> None:
        self._numbers = None

    def is_same(self, *numbers: int) -> bool:
        if self._numbers != self._all(numbers):
            return False
        # a weight whose coordinates change gets another psi
        return same(self._psi, self._coordinates())

    def _all(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        net = self._net
        return net.support_version, len(net.transforms), len(net.frozen_norms), *numbers

    def _coordinates(self) -> list[nn.Parameter]:
        return [w.psi for w in self._net.weights.values()]


def same(one: Sequence[object], other: Sequence[object]) -> bool:
    """Whether two lists hold the same objects."""
    return len(one) == len(other) and all(map(is_, one, other))
