"""Runs that a table does not count, as lines below the table: other settings, other seeds, doubles,
damaged runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from dimred.errors import counted, first_lines, numbered
from dimred.report.measures import not_numbers
from dimred.report.runs import Run, differences, same_experiment
from dimred.report.tables.table import Cell, Table

MOST = 12  # lines of a kind
NEAR = 4  # keys that differ, to list them with their values


def near_misses(others: Iterable[Run], cells: Iterable[Cell]) -> list[str]:
    """Runs that have the method, sparsity, model and data of a cell, and other settings."""
    alike: dict[tuple[str, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        alike[same_experiment(cell.description or {})].append(cell)
    seen: Counter[str] = Counter()
    for run in others:
        candidates = alike.get(same_experiment(run.description), [])
        apart = [differences(run.description, cell.description or {}) for cell in candidates]
        if closest := min(apart, key=len, default={}):
            seen[how_they_differ(closest)] += 1
    return first_lines(
        [f"{counted(count, 'run')}: {how}" for how, count in seen.most_common()], MOST
    )


def how_they_differ(apart: Mapping[str, tuple[Any, Any]]) -> str:
    if len(apart) > NEAR:
        return f"{len(apart)} keys differ: {', '.join(list(apart)[:NEAR])}, ..."
    return ", ".join(f"{name} is {one} instead of {other}" for name, (one, other) in apart.items())


def extra_seeds(table: Table, counted_runs: Iterable[tuple[str, int]]) -> list[str]:
    """`counted_runs`: the keys of cells and the seeds that there are runs of."""
    wanted: set[tuple[str | None, int]] = set()
    for part in table.parts:
        for cell in part.cells:
            wanted |= {(cell.key, seed) for seed in part.seeds}
    seeds = sorted({seed for key, seed in counted_runs if (key, seed) not in wanted})
    if not seeds:
        return []
    return [f"not counted (see --seeds): {numbered('seed', seeds)}"]


def doubles(found: Iterable[list[Run]]) -> list[str]:
    """`found`: for every cell and seed, the folders of the run."""
    several = []
    for runs in found:
        done = [run for run in runs if run.state == "done"]
        if len(done) > 1:
            several.append(runs)
    if not several:
        return []
    example = ", ".join(str(run.folder) for run in several[0])
    return [f"{counted(len(several), 'run')} in several folders, the newest counts: {example}"]


def damaged_runs(runs: Iterable[Run]) -> list[str]:
    """Folders that cannot be read."""
    return first_lines(
        [f"{run.folder} is damaged: {run.why}" for run in runs if run.state == "damaged"], MOST
    )


def without_numbers(runs: Iterable[Run]) -> list[str]:
    """Results that are counted and have something else in the place of a number."""
    lines = []
    for run in runs:
        if wrong := not_numbers(run.result):
            lines.append(
                f"{run.folder} is damaged: result.json has {', '.join(wrong)}, not a number"
            )
    return first_lines(lines, MOST)
