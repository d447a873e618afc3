"""Where the entries of a sparse weight lie, in the two orders in which kernels need them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """Of a weight, as a matrix of rows (outputs) and columns (inputs) for each tap, a position of
    the window of a filter. Linear layers have one tap.

    numbers: int32, one after the other. In the order of rows and taps: the first entry of each row
        and tap, and the end; the column of each entry. In the order of columns and taps: the first
        entry of each, and the end; the row of each entry; its place among psi. For filters, also
        the places in the first order. plan.h reads it.
    """

    numbers: Tensor
    shape: torch.Size  # of the weight
    entries: int

    @classmethod
    def of(cls, support: Tensor, shape: torch.Size) -> Plan:
        """support: sorted flat positions."""
        rows, columns, taps = shape[0], shape[1], shape[2:].numel()
        matrix = support.div(taps, rounding_mode="floor")
        tap = support - matrix * taps
        row = matrix.div(columns, rounding_mode="floor")
        column = matrix - row * columns
        by_row, row_starts = in_order(row * taps + tap, rows * taps)
        by_column, column_starts = in_order(column * taps + tap, columns * taps)
        parts = [row_starts, column[by_row], column_starts, row[by_column], by_column]
        if len(shape) > 2:
            parts.append(by_row)
        numbers = torch.cat([part.to(torch.int32) for part in parts])
        return cls(numbers, shape, support.numel())

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def row_starts(self) -> Tensor:
        """Of a Linear layer."""
        return self.numbers[: self.rows]

    @property
    def entry_columns(self) -> Tensor:
        """Of a Linear layer."""
        return self.numbers[self.rows + 1 :][: self.entries]


def in_order(targets: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The entries in the order of their targets, those of a target in their own order, and where
    each target begins."""
    ordered, entries = targets.to(torch.int32).sort(stable=True)
    return entries, torch.searchsorted(ordered, torch.arange(count + 1, dtype=torch.int32))
