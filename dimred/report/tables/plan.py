"""Plan the missing runs of a table: as few sweeps as possible, and an estimate of their cost."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from dimred.report.compose import Json, Overrides, size_of
from dimred.report.measures import number
from dimred.report.runs import Run, key
from dimred.report.tables.fill import model_and_data
from dimred.report.tables.table import Cell, Table

Box = dict[str, tuple[str, ...]]  # a sweep: every combination of these values


@dataclass(frozen=True)
class Job:
    """A run to make."""

    cell: Cell
    seed: int

    @property
    def overrides(self) -> Overrides:
        return {"seed": str(self.seed), **self.cell.overrides}

    @property
    def wanted(self) -> Json:
        """The description of the run."""
        assert self.cell.description is not None
        return self.cell.description


def left(table: Table, runs: Iterable[Run]) -> list[Job]:
    """The runs of a table that are not done, each once; the first seed of all cells comes first."""
    done = {(run.key, run.seed) for run in runs if run.state == "done"}
    jobs: dict[tuple[str, int], Job] = {}
    for seed in dict.fromkeys(chain.from_iterable(part.seeds for part in table.parts)):
        cells = chain.from_iterable(part.cells for part in table.parts if seed in part.seeds)
        for cell in cells:
            if cell.key and (cell.key, seed) not in done:
                jobs.setdefault((cell.key, seed), Job(cell, seed))
    return list(jobs.values())


def sweeps(jobs: Iterable[Job]) -> list[Box]:
    """Boxes whose combinations are exactly these jobs: for each key in turn, boxes that differ only
    in its values are merged."""
    boxes: list[Box] = []
    for job in jobs:
        boxes.append({name: (value,) for name, value in job.overrides.items()})
    for name in dict.fromkeys(chain.from_iterable(boxes)):
        merged: dict[object, Box] = {}
        for box in boxes:
            rest = frozenset((other, values) for other, values in box.items() if other != name)
            if name in box and (alike := merged.get(rest)):
                alike[name] = tuple(dict.fromkeys((*alike[name], *box[name])))
            else:
                # a box without the key must not be found by one that has it
                merged[rest if name in box else (rest, "without")] = dict(box)
        boxes = list(merged.values())
    return boxes


# -- costs --------------------
def estimate(jobs: Sequence[Job], runs: Iterable[Run]) -> str:
    """The cost of the jobs, judged by finished runs, or `unknown` where there are none."""
    if not jobs:
        return "no runs are missing"
    done: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        if run.state == "done":
            done[model_and_data(run.description)].append(run)
    alike = [done.get(model_and_data(job.wanted), []) for job in jobs]
    seconds = [guess(job, runs, "seconds") for job, runs in zip(jobs, alike, strict=True)]
    flops = [guess(job, runs, "training_flops") for job, runs in zip(jobs, alike, strict=True)]
    return (
        f"{len(jobs)} runs are left: {lengths(jobs)} (methods with several rounds train longer)\n"
        f"time: {total(seconds, clock)}\ntraining FLOPs: {total(flops, '{:.2e}'.format)}"
    )


def total(found: Sequence[float | None], text: Callable[[float], str]) -> str:
    known = [value for value in found if value is not None]
    if not known:
        return "unknown (there are no runs of their models and data yet)"
    others = ""
    if len(known) < len(found):
        others = f", and {len(found) - len(known)} runs without a similar run to judge by"
    return f"about {text(sum(known))} one after the other, judged by similar runs{others}"


def lengths(jobs: Iterable[Job]) -> str:
    """40 epochs of training each, 20400 in all; or the number of runs of each length."""
    found = Counter(size_of(job.wanted["recipe"]) for job in jobs)
    if len(found) > 1:
        return ", ".join(
            f"{n} times {size:g} {unit} of training" for (unit, size), n in found.most_common()
        )
    (unit, size), n = found.popitem()
    return f"{size:g} {unit} of training each, {size * n:g} in all"


def guess(job: Job, alike: Iterable[Run], name: str) -> float | None:
    """The median cost of runs with the same model and data (and the same method, if there are any),
    scaled to the length of the recipe."""
    usable = [
        run
        for run in alike
        if number(run.result, name) is not None and length(run.description, job.wanted)
    ]
    closer = [
        run
        for run in usable
        if run.description["method"]["_target_"] == job.wanted["method"]["_target_"]
    ]
    values = [run.result[name] * length(run.description, job.wanted) for run in closer or usable]
    return statistics.median(values) if values else None


def length(run: Json, wanted: Json) -> float:
    """The length of the wanted run, in lengths of the run; 0 if they cannot be compared."""
    one, other = run.get("recipe"), wanted["recipe"]
    name, size = size_of(other)
    if (
        not isinstance(one, dict)
        or key({"b": one.get("batch_size")}) != key({"b": other["batch_size"]})
        or (one.get("steps") is None) != (name == "epochs")
    ):
        return 0.0
    return size / long if (long := number(one, name)) else 0.0


def clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
