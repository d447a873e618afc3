"""The label of the present run in a sweep ("run 3 of 27"), for log messages and bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

PROGRESS = "dimred.progress"  # the logger of lines for which a terminal shows a bar

# whether this process may draw bars: not where several runs report to one terminal at once
own_screen = True


class Run(NamedTuple):
    """One run of a sweep: its label, "run 3 of 27", and its values on the command line."""

    label: str
    values: str


_runs: list[Run] = []  # the run that is being computed; none outside of a sweep


@contextmanager
def named_run(label: str, values: str) -> Iterator[None]:
    """Name a run of a sweep in the log messages of the block."""
    _runs.append(Run(label, values))
    try:
        yield
    finally:
        _runs.pop()


def current_run() -> Run | None:
    """The present run of a sweep; None outside of a sweep."""
    return _runs[-1] if _runs else None


def run_label() -> str:
    """ "run 3 of 27" in a sweep, else empty."""
    return _runs[-1].label if _runs else ""
