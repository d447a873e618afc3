"""A published table, filled from run folders alone: means over seeds, what was published, what is
missing."""

from __future__ import annotations

import math
import shlex
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from dimred.report.compose import Json, Overrides, flat
from dimred.report.measures import MEASURES, left_to_cut, not_numbers
from dimred.report.runs import Run, differences, newest, same_experiment
from dimred.report.tables.published import Cell, Claim, Part, Source, Table

SHOWN = 12  # runs that are not counted, and others that are named
NEAR = 4  # keys in which a run may differ to be called one with other settings
# of the weights to be pruned, that a method may leave to the final cut without a mark
MOST_CUT = 0.1
ROUNDING = 1e-9  # of numbers that are compared: 100 (1 - 0.98) is more than 2

Filled = dict[tuple[str, int], Run]  # the run of a cell's key and a seed


def fill(table: Table, runs: Iterable[Run], where: Overrides | None = None) -> Json:
    """The table as plain data, which dimred.report.tables.formats writes out. `where`: what else the
    commands of missing runs have to say, such as outputs=DIR."""
    runs, where = list(runs), where or {}
    wanted: dict[str, Cell] = {
        cell.key: cell for part in table.parts for cell in part.cells if cell.key
    }
    there: dict[tuple[str, int], list[Run]] = defaultdict(list)
    others = []
    for run in runs:
        if run.description:
            key = run.key
            if key in wanted:
                there[key, run.seed].append(run)
            else:
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
        "near_misses": near_misses(others, wanted.values()),
        "remarks": [
            *extra_seeds(table, chosen),
            *duplicates(there),
            *broken(runs),
            *no_numbers(chosen.values()),
        ],
    }


def fill_part(part: Part, chosen: Filled, where: Overrides) -> Json:
    cells = [
        fill_cell(part, cell, measure, chosen, where)
        for cell in shown_once(part).values()
        for measure in part.measures
    ]
    for column in {(cell["column"], cell["measure"]) for cell in cells}:
        mark_best(
            [
                cell
                for cell in cells
                if (cell["column"], cell["measure"]) == column
                and not set(cell["row"]) & set(part.baselines)
            ]
        )
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
    """The cells that are shown, by what they hold: what a row does not vary with is, in its first
    column alone."""
    first: dict[Any, Cell] = {}
    for cell in part.cells:
        first.setdefault((cell.row, cell.key or cell.column), cell)
    return first


def fill_cell(part: Part, cell: Cell, measure: str, chosen: Filled, where: Overrides) -> Json:
    runs = {seed: chosen.get((cell.key, seed)) for seed in part.seeds} if cell.key else {}
    done = [run for run in runs.values() if run and run.state == "done"]
    found = numbers(done, measure)
    missing = [seed for seed, run in runs.items() if run is None or run.state != "done"]
    filled: Json = {
        "row": cell.row,
        "column": cell.column,
        "measure": measure,
        **summary(found),
        "best": False,
        "wanted": len(runs),
        "runs": [str(run.folder) for run in done],
        "older": len(done) - len(found),
        "cut": any(left_to_cut(run.result) > MOST_CUT for run in done),
        "failed": [
            {"seed": seed, "state": run.state, "why": run.why}
            for seed, run in runs.items()
            if run and run.state != "done"
        ],
        "missing": missing,
        "command": command(cell.overrides | where, missing) if missing else "",
    }
    filled["published"] = [
        compare(source, i, cell, filled["mean"])
        for i, source in enumerate(part.published)
        if source.measure == measure and (cell.row, cell.column) in source.values
    ]
    return filled


def numbers(runs: Iterable[Run], measure: str) -> list[float]:
    values = (MEASURES[measure].value(run.result) for run in runs)
    return [value for value in values if value is not None]


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
    """97.5 % of Student's distribution lie below."""
    from scipy.special import stdtrit  # here, as it is slow to import

    return float(stdtrit(freedom, 0.975))


def mark_best(cells: list[Json]) -> None:
    """The best mean, and all that are printed alike; nothing if that is every one of them."""
    there = [cell for cell in cells if cell["mean"] is not None]
    if not there or not (better := MEASURES[there[0]["measure"]].better):
        return
    measure = MEASURES[there[0]["measure"]]
    best = measure.text(max((cell["mean"] for cell in there), key=lambda mean: better * mean))
    alike = [cell for cell in there if measure.text(cell["mean"]) == best]
    for cell in alike if len(alike) < len(there) else []:
        cell["best"] = True


# -- what was published --------------------
def about(source: Source) -> Json:
    return {
        "source": source.source,
        "measure": source.measure,
        "tolerance": source.tolerance,
        "recalled": source.recalled,
        "best_test_epoch": source.best_test_epoch,
        "note": source.note,
    }


def compare(source: Source, index: int, cell: Cell, mean: float | None) -> Json:
    """A published number, and ours less it: outside if that is more than the tolerance, or than
    twice the published standard deviation where this is more."""
    published = source.values[cell.row, cell.column]
    difference = None if mean is None else mean - published.value
    allowed = max(source.tolerance, 2 * (published.std or 0.0))
    return {
        "value": published.value,
        "std": published.std,
        "text": published.text,
        "source": index,
        "recalled": source.recalled,
        "difference": difference,
        "allowed": allowed,
        "outside": difference is not None and abs(difference) > allowed + ROUNDING,
    }


def judge(claim: Claim, part: Part, chosen: Filled) -> Json:
    """A claim beside what was found: "holds", "does not hold" (both "so far" while seeds are
    missing), or "open" as long as there are no runs."""
    keys = {(cell.row, cell.column): cell.key for cell in part.cells}
    found = [
        numbers(
            [
                run
                for seed in part.seeds
                if (run := chosen.get((keys[place] or "", seed))) and run.state == "done"
            ],
            claim.measure,
        )
        for place in (claim.cell, claim.against)
    ]
    ours: Json = {
        "says": claim.says,
        "cell": claim.cell,
        "against": claim.against,
        "measure": claim.measure,
        "n": [len(values) for values in found],
        "verdict": "open",
        "found": None,
    }
    if not all(found):
        return ours
    one, other = map(statistics.fmean, found)
    if claim.ratio_at_least is not None:
        value, least = one / other if other else math.inf, claim.ratio_at_least
    else:
        value, least = one - other, claim.difference_at_least or 0.0
    so_far = " so far" if min(ours["n"]) < len(part.seeds) else ""
    return ours | {
        "found": value,
        "least": least,
        "means": [one, other],
        "verdict": ("holds" if value >= least - ROUNDING else "does not hold") + so_far,
    }


# -- what is not there --------------------
def command(overrides: Overrides, seeds: list[int]) -> str:
    """What to type for the runs of a cell."""
    words = [
        f"{key}={value}" for key, value in (overrides | {"seed": ",".join(map(str, seeds))}).items()
    ]
    return shlex.join(["dimred", "train", *(["-m"] if len(seeds) > 1 else []), *words])


def near_misses(others: Iterable[Run], cells: Iterable[Cell]) -> list[str]:
    """Runs of the same method, sparsity, model and data with other settings, which are not
    counted."""
    alike: dict[tuple[str, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        alike[same_experiment(cell.description or {})].append(cell)
    seen: Counter[str] = Counter()
    for run in others:
        candidates = alike.get(same_experiment(run.description), [])
        apart = min(
            (differences(run.description, cell.description or {}) for cell in candidates),
            key=len,
            default={},
        )
        if 0 < len(apart) <= NEAR:
            seen[
                ", ".join(
                    f"{name} is {one} instead of {other}" for name, (one, other) in apart.items()
                )
            ] += 1
        elif apart:
            seen[f"{len(apart)} keys differ: {', '.join(list(apart)[:NEAR])}, ..."] += 1
    return few([f"{count} run{'s' * (count > 1)}: {how}" for how, count in seen.most_common()])


def extra_seeds(table: Table, chosen: Filled) -> list[str]:
    wanted = {
        (cell.key, seed) for part in table.parts for cell in part.cells for seed in part.seeds
    }
    seeds = sorted({seed for key, seed in chosen if (key, seed) not in wanted})
    several = "s" * (len(seeds) > 1)
    return (
        [f"also run, and not counted: seed{several} {', '.join(map(str, seeds))} (--seeds)"]
        if seeds
        else []
    )


def duplicates(there: Mapping[Any, list[Run]]) -> list[str]:
    several = [runs for runs in there.values() if sum(run.state == "done" for run in runs) > 1]
    return (
        [
            f"{len(several)} runs are there more than once, the newest counts: "
            + ", ".join(str(run.folder) for run in several[0])
        ]
        if several
        else []
    )


def broken(runs: Iterable[Run]) -> list[str]:
    """Folders that cannot be read."""
    return few([f"{run.folder} is damaged: {run.why}" for run in runs if run.state == "damaged"])


def no_numbers(runs: Iterable[Run]) -> list[str]:
    """Results that count and hold something else where a number belongs."""
    return few(
        [
            f"{run.folder} is damaged: result.json has {', '.join(wrong)}, and that is no number"
            for run in runs
            if (wrong := not_numbers(run.result))
        ]
    )


def few(lines: list[str]) -> list[str]:
    return [*lines[:SHOWN], f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else lines


def environment(runs: Iterable[Run]) -> list[str]:
    """The devices and versions that runs were made with, most frequent first."""
    runs = [run for run in runs if run.state == "done"]
    seen = Counter(
        f"{run.result.get('device', 'unknown device')}, torch {versions(run).get('torch', 'unknown')}"
        for run in runs
    )
    commits = Counter(str(run.result.get("commit") or "unknown")[:12] for run in runs)
    several = (
        [
            f"by {len(commits)} versions of dimred, between which numbers such as FLOPs may differ: commits "
            + ", ".join(f"{name} ({count} runs)" for name, count in commits.most_common(4))
            + ", ..." * (len(commits) > 4)
        ]
        if len(commits) > 1
        else []
    )
    return [*(f"{name} ({count} runs)" for name, count in seen.most_common(4)), *several]


def versions(run: Run) -> Json:
    found = run.result.get("versions")
    return found if isinstance(found, dict) else {}


def folders(document: Json) -> set[Path]:
    """Of all runs that a filled table counts."""
    return {
        Path(folder)
        for part in document["parts"]
        for cell in part["cells"]
        for folder in cell["runs"]
    }


def model_and_data(description: Json) -> tuple[str, ...]:
    return tuple(
        str(item)
        for name, item in sorted(flat(description).items())
        if name.startswith("model.") or name in ("dataset._target_", "dataset.path")
    )
