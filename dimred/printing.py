"""Results as text."""
from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

from dimred.terminal import printable

LEAST = 16      # characters of a column that is wrapped


def summary(result: dict[str, Any]) -> str:
    """The end of a run in a few lines."""
    best = "" if result["val_accuracy"] is None else (
        f" (at the best validation epoch: {percent(result['best_val_test_accuracy'])})")
    others = result["trained_parameters"] - result["dim"]
    return (f"{result['method']} on {result['data']} with {result['model']}: test accuracy "
            f"{percent(result['test_accuracy'])}{best}\n"
            f"  {result['dim']} of {result['total']} weights trained, {percent(result['density'])} nonzero; "
            f"{others} biases and norms; {result['steps']} steps in {result['seconds']:.1f} s\n  {result['folder']}")


def percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f} %"


def table(header: Iterable[str], rows: Iterable[Iterable[object]], width: int | None = None, wrap: int = 0) -> str:
    """Columns as wide as they need to be. With a `width`, the cells of the column `wrap` take several lines where
    that makes the table fit."""
    cells = [tuple(map(printable, map(str, row))) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if width is not None:
        others = sum(widths) - widths[wrap] + 2 * (len(widths) - 1)
        widths[wrap] = min(widths[wrap], max(LEAST, width - others))
        cells = [line for row in cells for line in _wrapped(row, wrap, widths[wrap])]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines).strip("\n")


def _wrapped(row: tuple[str, ...], wrap: int, width: int) -> list[tuple[str, ...]]:
    """The lines of a row of which one cell is wrapped; the others stand in its first line."""
    first, *more = textwrap.wrap(row[wrap], width, break_on_hyphens=False) or [""]
    empty = [""] * len(row)
    return [(*row[:wrap], first, *row[wrap + 1:]), *((*empty[:wrap], line, *empty[wrap + 1:]) for line in more)]
