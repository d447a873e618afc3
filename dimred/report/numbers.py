"""Numbers and values of runs by name: the measures of tables, and the columns of `dimred runs`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from dimred.errors import UserError, nearest
from dimred.report.measures import MEASURES, is_number, number
from dimred.report.rows import flat_row
from dimred.report.runs import Run


class Number(NamedTuple):
    name: str
    label: str
    value: Callable[[Run], float | None]


def number_named(name: str, runs: Iterable[Run]) -> Number:
    """A measure in its printed unit, or else a number of result.json or config.yaml as it is.
    UserError with the nearest names if no run has it."""
    if measure := MEASURES.get(name):
        return Number(name, measure.label, lambda run: measure.value(run.result))
    allowed = set(MEASURES)
    for run in runs:
        row = flat_row(run)
        allowed |= {key for key in row if is_number(row[key])}
    if name not in allowed:
        raise UserError(f"unknown number {name!r}. {nearest(name, allowed)}")
    return Number(name, name, lambda run: number(flat_row(run), name))


def require_column(name: str, runs: Iterable[Run]) -> None:
    """UserError with the nearest names if no run has a value of this name."""
    allowed = set[str]()
    for run in runs:
        allowed |= flat_row(run).keys()
    if name not in allowed:
        raise UserError(f"unknown key {name!r} of --by. {nearest(name, allowed)}")
