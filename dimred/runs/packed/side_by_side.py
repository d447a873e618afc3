"""Runs of a sweep side by side, on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from dimred.runs import sweep
from dimred.runs.packed.display import Display
from dimred.runs.packed.pool import the_pool
from dimred.runs.packed.worker import Outcome, Task


def side_by_side(
    tasks: Sequence[Task],
    first: int,
    folder: str,
    at_once: int | None,
    more: bool = False,
    patient: bool = False,
) -> list[Outcome]:
    """The outcomes of tasks. Each is written to the folder of their sweep, in which the first task
    has this number, as soon as it is known.

    more, patient: as of Pool.outcomes"""
    found: dict[int, Outcome] = {}
    with Display(len(tasks)) as display:
        for i, outcome in the_pool(at_once).outcomes(tasks, more, patient):
            sweep.write_outcome(folder, first + i, outcome)
            display.show(tasks[i], outcome)
            found[i] = outcome
    return [found[i] for i in range(len(tasks))]
