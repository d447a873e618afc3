"""What a sweep came to: a row for every description, with mean and standard deviation over its
seeds."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from dimred.report.measures import MEASURES, Result
from dimred.runs.printing import table
from dimred.runs.terminal import printable

WIDTH = 100
#: what is shown of MEASURES, and the title of its column
COLUMNS = {
    "test_accuracy": "test accuracy %",
    "dim": "dim",
    "density": "nonzero",
    "training_flops": "training FLOPs",
    "storage_bytes": "storage",
}
UNITS = {"h": 3600, "min": 60, "s": 1}  # of time


def sweep_table(outcomes: Sequence[Result], width: int = WIDTH) -> str:
    """The table, then what failed and why, then how many there are."""
    distinct = distinct_runs(outcomes)
    done = [run for run in distinct if run["status"] == "done"]
    failed = [run for run in distinct if run["status"] != "done"]
    parts = []
    if done:
        header = ("run", "seeds", *COLUMNS.values(), "time")
        parts.append(
            table(header, [row(name, runs) for name, runs in by_seeds(done).items()], width)
        )
    reasons: dict[str, list[str]] = {}
    for run in failed:
        reasons.setdefault(run["reason"], []).append(name_of(run))
    for reason, names in reasons.items():
        lines = textwrap.wrap(f"FAILED: {printable(reason)}", width, subsequent_indent="  ")
        parts.append("\n".join([*lines, *(f"  {printable(name)}" for name in names if name)]))
    shared = len(outcomes) - len(distinct)
    also = f" ({shared} the same as another)" if shared else ""
    return "\n\n".join([*parts, f"{len(outcomes)} runs, {len(failed)} failed{also}"])


def distinct_runs(outcomes: Sequence[Result]) -> list[Result]:
    """Every run once, with those of its overrides that all combinations of it share and that not
    all runs have."""
    runs: dict[str, Result] = {}
    for i, outcome in enumerate(outcomes):
        folder = outcome.get("folder", f"failed {i}")
        given = outcome["overrides"]
        if folder in runs:
            given = [each for each in runs[folder]["overrides"] if each in given]
        runs[folder] = {**outcome, "overrides": given}
    everywhere = (
        set.intersection(*(set(run["overrides"]) for run in outcomes))
        if len(outcomes) > 1
        else set()
    )
    return [
        {**run, "overrides": [each for each in run["overrides"] if each not in everywhere]}
        for run in runs.values()
    ]


def name_of(run: Mapping[str, Any]) -> str:
    return " ".join(run["overrides"])


def by_seeds(runs: Sequence[Result]) -> dict[str, list[Result]]:
    """The runs that differ in their seed alone, by what they have in common."""
    found: dict[str, list[Result]] = {}
    for run in runs:
        without = [each for each in run["overrides"] if not each.startswith("seed=")]
        found.setdefault(" ".join(without), []).append(run)
    return found


def row(name: str, runs: Sequence[Result]) -> tuple[object, ...]:
    return (name or "all", len(runs), *(spread(measure, runs) for measure in COLUMNS), time(runs))


def spread(measure: str, runs: Sequence[Result]) -> str:
    """Mean ± standard deviation of the runs that have the number."""
    values = values_of(measure, runs)
    return MEASURES[measure].text(statistics.fmean(values), deviation(values)) if values else ""


def time(runs: Sequence[Result]) -> str:
    """The same in seconds, minutes or hours."""
    values = values_of("seconds", runs)
    if not values:
        return ""
    unit = next((unit for unit, size in UNITS.items() if statistics.fmean(values) >= 2 * size), "s")
    values = [value / UNITS[unit] for value in values]
    spread = f" ± {deviation(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread} {unit}"


def values_of(measure: str, runs: Sequence[Result]) -> list[float]:
    values = [MEASURES[measure].value(run) for run in runs]
    return [value for value in values if value is not None]


def deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
