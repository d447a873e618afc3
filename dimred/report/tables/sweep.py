"""The summary of a sweep: a row for every configuration, with mean and standard deviation over its
seeds."""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from dimred.errors import counted
from dimred.report.measures import MEASURES, Result
from dimred.runs.printing import table
from dimred.runs.terminal import printable

WIDTH = 100
#: the measures that are shown, with the titles of their columns
COLUMNS = {
    "test_accuracy": "test %",
    "dim": "dim",
    "density": "nonzero",
    "training_flops": "FLOPs",
    "storage_bytes": "storage",
}
UNITS = {"h": 3600, "min": 60, "s": 1}  # of time
DIGITS = re.compile(r"\d+\.\d{5,}(e[+-]?\d+)?")  # a number that a search has drawn


def sweep_table(outcomes: Sequence[Result], width: int = WIDTH) -> str:
    """The table, then the failures with their reasons, then the counts."""
    distinct = distinct_runs(outcomes)
    done = [run for run in distinct if run["status"] == "done"]
    failed = [run for run in distinct if run["status"] != "done"]
    parts = []
    if done:
        header = ("run", "seeds", *COLUMNS.values(), "time")
        rows = [row(name, runs) for name, runs in by_seeds(done).items()]
        parts.append(table(header, rows, width))
    reasons: dict[str, list[str]] = {}
    for run in failed:
        reasons.setdefault(run["reason"], []).append(name_of(run))
    for reason, names in reasons.items():
        lines = textwrap.wrap(f"FAILED: {printable(reason)}", width, subsequent_indent="  ")
        lines += [f"  {printable(name)}" for name in names if name]
        parts.append("\n".join(lines))
    shared = len(outcomes) - len(distinct)
    also = f" ({shared} the same as another)" if shared else ""
    return "\n\n".join([*parts, f"{counted(len(outcomes), 'run')}, {len(failed)} failed{also}"])


def distinct_runs(outcomes: Sequence[Result]) -> list[Result]:
    """Every run once, named by the overrides that all its combinations have and that not all runs
    have."""
    runs: dict[str, Result] = {}
    for i, outcome in enumerate(outcomes):
        folder = outcome.get("folder", f"failed {i}")
        given = outcome["overrides"]
        if folder in runs:
            given = [each for each in runs[folder]["overrides"] if each in given]
        runs[folder] = {**outcome, "overrides": given}
    everywhere = set[str]()
    if len(outcomes) > 1:
        everywhere = set.intersection(*(set(run["overrides"]) for run in outcomes))
    for run in runs.values():
        run["overrides"] = [each for each in run["overrides"] if each not in everywhere]
    return list(runs.values())


def name_of(run: Mapping[str, Any]) -> str:
    return " ".join(run["overrides"])


def by_seeds(runs: Sequence[Result]) -> dict[str, list[Result]]:
    """Group the runs that differ only in their seed; the keys are what they have in common."""
    found: dict[str, list[Result]] = {}
    for run in runs:
        without = [each for each in run["overrides"] if not each.startswith("seed=")]
        found.setdefault(" ".join(without), []).append(run)
    return found


def row(name: str, runs: Sequence[Result]) -> tuple[object, ...]:
    # four digits of a drawn number tell it from others, and keep the name on one line
    shown = DIGITS.sub(lambda found: f"{float(found[0]):.4g}", name)
    return (shown or "all", len(runs), *(spread(measure, runs) for measure in COLUMNS), time(runs))


def spread(measure: str, runs: Sequence[Result]) -> str:
    """Mean ± standard deviation over the runs that have the number."""
    values = values_of(measure, runs)
    return MEASURES[measure].text(statistics.fmean(values), deviation(values)) if values else ""


def time(runs: Sequence[Result]) -> str:
    """Mean ± standard deviation in seconds, minutes or hours."""
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
