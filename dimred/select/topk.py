"""Exact selection of the weights with the highest scores. allocations.py decides the number in each
layer.

The functions have no side effects and return exactly the requested number. Among equal scores the
first positions are chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from dimred.errors import UserError
from dimred.net.coordinates import Supports
from dimred.scores import Scores
from dimred.select.allocations import ERK, Allocation, Budget, Global, Uniform

__all__ = [
    "ERK",
    "Allocation",
    "Budget",
    "Global",
    "Scores",
    "Uniform",
    "largest",
    "rounded_down",
    "topk",
]


def largest(scores: Tensor, k: int) -> Tensor:
    """Sorted positions (k) of the k largest values of a flat tensor (n); among equal values the
    first positions are chosen."""
    n = scores.numel()
    if k >= n:
        return torch.arange(n, device=scores.device)
    if k <= 0:
        return torch.empty(0, dtype=torch.int64, device=scores.device)
    threshold = _kth_largest(scores, k)
    chosen = scores >= threshold
    positions = _where(chosen)
    if len(positions) > k:  # more ties at the threshold than are needed: drop the last
        ties = _where(scores == threshold)
        chosen[ties[len(ties) - (len(positions) - k) :]] = False
        positions = _where(chosen)
    return positions


def _where(chosen: Tensor) -> Tensor:
    """Sorted positions at which a flat tensor is True. On the CPU numpy is up to ten times faster
    than torch here."""
    if chosen.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(chosen.numpy()))
    return chosen.nonzero().view(-1)


def union(size: int, one: Tensor, other: Tensor) -> Tensor:
    """The sorted positions, below `size`, that are in either tensor."""
    chosen = torch.zeros(size, dtype=torch.bool, device=one.device)
    chosen[one] = chosen[other] = True
    return _where(chosen)


def _kth_largest(scores: Tensor, k: int) -> float:
    """The k-th largest value. On the CPU numpy's partition is much faster than torch.kthvalue."""
    n = scores.numel()
    if scores.device.type == "cpu":
        top = np.partition(scores.numpy(), n - k)[n - k :]
        # NaN sorts last, so it is among the largest
        threshold, broken = float(top[0]), bool(np.isnan(top).any())
    else:
        threshold, broken = scores.kthvalue(n - k + 1).values.item(), bool(scores.isnan().any())
    if broken:
        raise UserError(
            f"{int(scores.isnan().sum())} of {n} scores are not a number: the loss or a gradient "
            "overflowed while weights were scored. Score with other examples or another method"
        )
    return threshold


def topk(scores: Scores, budget: Budget) -> Supports:
    """The supports of the weights with the highest scores: over all layers together if the budget
    is one number, within each layer if it has a number for each."""
    flat = {name: score.reshape(-1) for name, score in scores.items()}
    if isinstance(budget, Mapping):
        return {name: largest(score, budget[name]) for name, score in flat.items()}
    positions = largest(
        torch.cat(list(flat.values())) if len(flat) > 1 else next(iter(flat.values())), budget
    )
    ends = torch.tensor([score.numel() for score in flat.values()], device=positions.device).cumsum(
        0
    )
    # positions are sorted, so those of a layer are one slice
    cuts = torch.searchsorted(positions, ends).tolist()
    starts = [0, *ends.tolist()]
    return {
        name: positions[i:j] - start
        for name, i, j, start in zip(flat, [0, *cuts], cuts, starts, strict=False)
    }


def rounded_down(number: float) -> int:
    """floor, tolerant of rounding errors: (1 - 0.9) * 830 = 82.99999999999999 gives 83."""
    return math.floor(number + 1e-6)
