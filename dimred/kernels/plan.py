"""Where the entries of a sparse weight lie, in the two orders in which kernels need them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """Of a weight, as a matrix of rows (outputs) and columns (everything else).

    numbers: int32, one after the other: the first entry of each row and the end; the column of each
        entry; the first entry of each column in the order of columns, and the end; the row of each
        entry in that order; and its place among psi. plan.h reads it.
    """

    numbers: Tensor
    shape: torch.Size  # of the weight

    @classmethod
    def of(cls, support: Tensor, shape: torch.Size) -> Plan:
        """support: sorted flat positions."""
        rows, columns = shape[0], shape[1:].numel()
        row = support.div(columns, rounding_mode="floor")
        column = support - row * columns
        # stable: the rows of a column stay sorted
        by_column, places = column.to(torch.int32).sort(stable=True)
        parts = [
            torch.searchsorted(row, torch.arange(rows + 1)),
            column,
            torch.searchsorted(by_column, torch.arange(columns + 1, dtype=torch.int32)),
            row[places],
            places,
        ]
        return cls(torch.cat([part.to(torch.int32) for part in parts]), shape)

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def entries(self) -> int:
        return (self.numbers.numel() - self.rows - self.shape[1:].numel() - 2) // 3

    @property
    def row_starts(self) -> Tensor:
        return self.numbers[: self.rows]

    @property
    def entry_columns(self) -> Tensor:
        return self.numbers[self.rows + 1 :][: self.entries]
