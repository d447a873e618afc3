"""Results as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

from dimred.runs.terminal import printable

LEAST = 16  # characters of a column that is wrapped


def summary(result: dict[str, Any]) -> str:
    """The end of a run in a few lines."""
    best = (
        ""
        if result["val_accuracy"] is None
        else (f" (at the best validation epoch: {percent(result['best_val_test_accuracy'])})")
    )
    parts = [
        trained_weights(result),
        *others(result),
        f"{result['steps']} steps in {result['seconds']:.1f} s",
    ]
    return (
        f"{result['method']} on {result['data']} with {result['model']}: test accuracy "
        f"{percent(result['test_accuracy'])}{best}\n  {'; '.join(parts)}\n  {result['folder']}"
    )


def trained_weights(result: dict[str, Any]) -> str:
    """How many of the covered weights were trained at any time, and how many of these to the
    end."""
    # of older versions
    ever = result["trained_ever"] if "trained_ever" in result else result["dim"]
    last = result.get("trained_to_the_end", ever)
    more = f" ({last} to the end)" if last != ever else ""
    return (
        f"{ever} of {result['total']} weights trained{more}, {percent(result['density'])} nonzero"
    )


def others(result: dict[str, Any]) -> list[str]:
    """What else was trained: numbers that weights are made of or chosen by, and parameters that are
    not covered."""
    parts = [f"{count} {kind} trained" for kind, count in result.get("other_numbers", {}).items()]
    uncovered = []
    for kind, count in result.get("uncovered", {}).items():
        names = result["uncovered_layers"] if kind == "weights" else []
        more = f" and {len(names) - 3} more layers" if len(names) > 3 else ""
        of = f" ({', '.join(names[:3])}{more})" if names else ""
        uncovered.append(f"{count} {kind}{of}")
    if uncovered:
        parts.append(f"trained, but not covered: {', '.join(uncovered)}")
    return parts


def percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f} %"


def table(
    header: Iterable[str], rows: Iterable[Iterable[object]], width: int | None = None, wrap: int = 0
) -> str:
    """Columns as wide as they need to be. With a `width`, the cells of the column `wrap` take
    several lines where that makes the table fit."""
    cells = [tuple(map(printable, map(str, row))) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if width is not None:
        others = sum(widths) - widths[wrap] + 2 * (len(widths) - 1)
        widths[wrap] = min(widths[wrap], max(LEAST, width - others))
        cells = [line for row in cells for line in _wrapped(row, wrap, widths[wrap])]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    ]
    return "\n".join(lines).strip("\n")


def _wrapped(row: tuple[str, ...], wrap: int, width: int) -> list[tuple[str, ...]]:
    """The lines of a row of which one cell is wrapped; the others stand in its first line."""
    first, *more = textwrap.wrap(row[wrap], width, break_on_hyphens=False) or [""]
    empty = [""] * len(row)
    return [
        (*row[:wrap], first, *row[wrap + 1 :]),
        *((*empty[:wrap], line, *empty[wrap + 1 :]) for line in more),
    ]
