"""Fill a published table from run folders: means over seeds, published numbers beside them, and the
commands of the runs that are missing."""

from __future__ import annotations

import math
import shlex
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain, product
from pathlib import Path
from typing import Any

from dimred.errors import counted
from dimred.report.compose import Json, Overrides, flat
from dimred.report.measures import MEASURES, left_to_cut
from dimred.report.runs import Run, newest
from dimred.report.tables import uncounted
from dimred.report.tables.beside_published import Filled, about, beside, judge
from dimred.report.tables.table import Cell, Part, Table

# of the weights to be pruned: the share that the final cut may prune without a mark
MOST_CUT = 0.1


def fill(table: Table, runs: Iterable[Run], where: Overrides | None = None) -> Json:
    """The table as plain data, which dimred.report.tables.formats prints. `where`: overrides for
    the commands of missing runs, such as outputs=DIR."""
    runs, where = list(runs), where or {}
    cells = chain.from_iterable(part.cells for part in table.parts)
    wanted: dict[str, Cell] = {cell.key: cell for cell in cells if cell.key}
    there: dict[tuple[str, int], list[Run]] = defaultdict(list)
    others = []
    for run in runs:
        if run.description and run.key in wanted:
            there[run.key, run.seed].append(run)
        elif run.description:
            others.append(run)
    chosen = {place: newest(found) for place, found in there.items()}
    parts = [fill_part(part, chosen, where) for part in table.parts]
    return {
        "table": table.name,
        "title": table.heading,
        "changed": str(table.change),
        "only": "",
        "source": table.source,
        "notes": list(table.notes),
        "parts": parts,
        "near_misses": uncounted.near_misses(others, wanted.values()),
        "remarks": [
            *uncounted.extra_seeds(table, chosen),
            *uncounted.doubles(there.values()),
            *uncounted.damaged_runs(runs),
            *uncounted.without_numbers(chosen.values()),
        ],
    }


def fill_part(part: Part, chosen: Filled, where: Overrides) -> Json:
    cells = []
    for cell, measure in product(shown_once(part).values(), part.measures):
        cells.append(fill_cell(part, cell, measure, chosen, where))
    columns: dict[object, list[Json]] = defaultdict(list)
    for cell in cells:
        if not set(cell["row"]) & set(part.baselines):
            columns[cell["column"], cell["measure"]].append(cell)
    for competing in columns.values():
        mark_best(competing)
    return {
        "part": part.name,
        "row_axes": part.row_axes,
        "column_axes": part.column_axes,
        "measures": part.measures,
        "seeds": part.seeds,
        "sources": [about(source) for source in part.published],
        "cells": cells,
        "claims": [judge(claim, part, chosen) for claim in part.claims],
    }


def shown_once(part: Part) -> dict[Any, Cell]:
    """The cells to show, by row and content: where the columns of a row have the same content, the
    first one."""
    first: dict[Any, Cell] = {}
    for cell in part.cells:
        first.setdefault((cell.row, cell.key or cell.column), cell)
    return first


def fill_cell(part: Part, cell: Cell, measure: str, chosen: Filled, where: Overrides) -> Json:
    runs = {seed: chosen.get((cell.key, seed)) for seed in part.seeds} if cell.key else {}
    done = [run for run in runs.values() if run and run.state == "done"]
    failed, missing = [], []
    for seed, run in runs.items():
        if run and run.state != "done":
            failed.append({"seed": seed, "state": run.state, "why": run.why})
        if run is None or run.state != "done":
            missing.append(seed)
    values = by_seed(done, measure)
    ours = summary([*values.values()])
    return {
        "row": cell.row,
        "column": cell.column,
        "measure": measure,
        **ours,
        "best": False,
        "wanted": len(runs),
        "runs": [str(run.folder) for run in done],
        "values": values,
        "older": len(done) - len(values),
        "cut": any(left_to_cut(run.result) > MOST_CUT for run in done),
        "failed": failed,
        "missing": missing,
        "command": command(cell.overrides | where, missing) if missing else "",
        "published": beside(part, cell, measure, ours["mean"]),
    }


def by_seed(done: Iterable[Run], measure: str) -> dict[int, float]:
    """The values of the runs that have the measure."""
    values = {}
    for run in done:
        value = MEASURES[measure].value(run.result)
        if value is not None:
            values[run.seed] = value
    return values


def command(overrides: Overrides, seeds: list[int]) -> str:
    """The command that makes the runs of a cell."""
    given = overrides | {"seed": ",".join(map(str, seeds))}
    sweep = ["-m"] if len(seeds) > 1 else []
    words = [f"{key}={value}" for key, value in given.items()]
    return shlex.join(["dimred", "train", *sweep, *words])


# -- statistics --------------------
def summary(values: list[float]) -> Json:
    """Mean, sample standard deviation and the 95 % interval of the mean by Student's t, for two
    values or more."""
    n, mean = len(values), statistics.fmean(values) if values else None
    if n < 2:
        return {"mean": mean, "std": None, "n": n, "low": None, "high": None}
    assert mean is not None
    std = statistics.stdev(values)
    half = t_quantile(n - 1) * std / math.sqrt(n)
    return {"mean": mean, "std": std, "n": n, "low": mean - half, "high": mean + half}


@lru_cache
def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t."""
    from scipy.special import stdtrit  # slow to import

    return float(stdtrit(freedom, 0.975))


def mark_best(cells: list[Json]) -> None:
    """Mark the best mean of a column and all that are printed alike, unless these are all."""
    there = [cell for cell in cells if cell["mean"] is not None]
    if not there:
        return
    measure = MEASURES[there[0]["measure"]]
    # by their texts: a reader cannot tell apart what is printed alike
    best = measure.text(max(measure.better * cell["mean"] for cell in there) * measure.better)
    alike = [cell for cell in there if measure.text(cell["mean"]) == best]
    if measure.better and len(alike) < len(there):
        for cell in alike:
            cell["best"] = True


# -- the runs of a filled table --------------------
def environment(runs: Iterable[Run]) -> list[str]:
    """The devices and versions that made the runs, most frequent first."""
    runs = [run for run in runs if run.state == "done"]
    seen = Counter(
        f"{run.result.get('device', 'unknown device')}, "
        f"torch {versions(run).get('torch', 'unknown')}"
        for run in runs
    )
    commits = Counter(str(run.result.get("commit") or "unknown")[:12] for run in runs)
    lines = [f"{name} ({counted(count, 'run')})" for name, count in seen.most_common(4)]
    if len(commits) > 1:
        names = [f"{name} ({counted(count, 'run')})" for name, count in commits.most_common(4)]
        more = ", ..." if len(commits) > 4 else ""
        lines.append(
            f"by {len(commits)} versions of dimred, between which numbers such as FLOPs may "
            f"differ: commits {', '.join(names)}{more}"
        )
    return lines


def versions(run: Run) -> Json:
    found = run.result.get("versions")
    return found if isinstance(found, dict) else {}


def folders(document: Json) -> set[Path]:
    """The folders of all runs that a filled table counts."""
    found: set[Path] = set()
    for cell in chain.from_iterable(part["cells"] for part in document["parts"]):
        found |= set(map(Path, cell["runs"]))
    return found


def model_and_data(description: Json) -> tuple[str, ...]:
    found = []
    for name, item in sorted(flat(description).items()):
        if name.startswith("model.") or name in ("dataset._target_", "dataset.path"):
            found.append(str(item))
    return tuple(found)
