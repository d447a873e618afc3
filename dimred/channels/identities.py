"""Identities of channels, and which of them are coupled."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

STAYS = -1  # the number of a channel that cannot be removed


class Along(NamedTuple):
    """The channels of a tensor: identities along one dimension."""

    axis: int
    ids: Tensor


#: of a tensor none of whose channels can be removed, whatever dimension they are in
FIXED = Along(0, torch.zeros(0, dtype=torch.int64))


class DisjointSet:
    """Disjoint sets of the numbers 0, 1, ... (union-find)."""

    def __init__(self, count: int) -> None:
        self.parents = list(range(count))

    def root(self, i: int) -> int:
        while self.parents[i] != i:
            # path halving keeps the trees flat
            self.parents[i] = i = self.parents[self.parents[i]]
        return i

    def join(self, one: Tensor, other: Tensor) -> None:
        """Unite the sets of each pair. The smallest number represents a set."""
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            # 0 stands for channels that cannot be removed, so it must stay the root of its set
            low, high = sorted((self.root(a), self.root(b)))
            self.parents[high] = low

    def roots(self) -> Tensor:
        return torch.tensor([self.root(i) for i in range(len(self.parents))], dtype=torch.int64)

    def new(self, count: int) -> Tensor:
        start = len(self.parents)
        self.parents += range(start, start + count)
        return torch.arange(start, start + count)
