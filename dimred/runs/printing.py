"""Results as text."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from dimred.errors import counted
from dimred.runs.terminal import printable, width

LEAST = 16  # characters of a wrapped column
ACCURACIES = {
    "best_val_test_accuracy": "test accuracy at the best validation epoch",
    "ema_test_accuracy": "test accuracy of averaged weights",
    "ema_best_val_test_accuracy": "test accuracy of averaged weights at their best epoch",
}


def summary(result: dict[str, Any]) -> str:
    """The end of a run: the test accuracy, then one fact per line, the folder last."""
    facts = [
        *accuracies(result),
        trained_weights(result),
        *others(result),
        f"{counted(result['steps'], 'step')} in {result['seconds']:.1f} s",
    ]
    lines = [
        f"{result['method']} on {result['data']} with {result['model']}: test accuracy "
        f"{percent(result['test_accuracy'])}"
    ]
    for fact in facts:
        lines += textwrap.wrap(fact, width(), initial_indent="  ", subsequent_indent="    ")
    return "\n".join([*lines, f"  {result['folder']}"])


def accuracies(result: dict[str, Any]) -> list[str]:
    """The test accuracies besides that of the final weights, as far as there are any."""
    found = {name: result.get(key) for key, name in ACCURACIES.items()}
    return [f"{name}: {percent(value)}" for name, value in found.items() if value is not None]


def trained_weights(result: dict[str, Any]) -> str:
    """The number of covered weights that were trained at any time, and to the end."""
    # results of older versions lack both keys
    ever = result["trained_ever"] if "trained_ever" in result else result["dim"]
    last = result.get("trained_to_the_end", ever)
    more = f" ({last} to the end)" if last != ever else ""
    return (
        f"{ever} of {result['total']} weights trained{more}, {percent(result['density'])} nonzero"
    )


def others(result: dict[str, Any]) -> list[str]:
    """Trained numbers that the weights are computed or chosen by (scores, gates, ...), and trained
    parameters that are not covered."""
    parts = [f"{count} {kind} trained" for kind, count in result.get("other_numbers", {}).items()]
    uncovered = []
    for kind, count in result.get("uncovered", {}).items():
        names = result["uncovered_layers"] if kind == "weights" else []
        more = f" and {counted(len(names) - 3, 'more layer')}" if len(names) > 3 else ""
        layers = f" ({', '.join(names[:3])}{more})" if names else ""
        uncovered.append(f"{count} {kind}{layers}")
    if uncovered:
        parts.append(f"trained, but not covered: {', '.join(uncovered)}")
    return parts


def states(found: Sequence[str]) -> str:
    """The states of runs: "3 runs: 2 done, 1 failed"."""
    parts = [f"{count} {state}" for state, count in Counter(found).items()]
    return f"{counted(len(found), 'run')}: {', '.join(parts) or 'none'}"


def percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f} %"


def table(
    header: Iterable[str],
    rows: Iterable[Iterable[object]],
    fit: int | None = None,
    wrap: int = 0,
) -> str:
    """Columns as wide as their longest cell. With `fit` columns of text, the cells of the column
    `wrap` are wrapped where this makes the table fit."""
    cells = [tuple(map(printable, map(str, row))) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if fit is not None:
        others = sum(widths) - widths[wrap] + 2 * (len(widths) - 1)
        widths[wrap] = min(widths[wrap], max(LEAST, fit - others))
        cells = list(chain.from_iterable(_wrapped(row, wrap, widths[wrap]) for row in cells))
    lines = []
    for row in cells:
        padded = [cell.ljust(wide) for cell, wide in zip(row, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines).strip("\n")


def _wrapped(row: tuple[str, ...], wrap: int, width: int) -> list[tuple[str, ...]]:
    """The lines of a row with one wrapped cell; the other cells are in the first line."""
    first, *more = textwrap.wrap(row[wrap], width, break_on_hyphens=False) or [""]
    before, after = [""] * wrap, [""] * (len(row) - wrap - 1)
    lines = [(*row[:wrap], first, *row[wrap + 1 :])]
    return lines + [(*before, line, *after) for line in more]
