"""Plan the missing runs of a table, in as few sweeps as possible."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from dimred.report.compose import Json, Overrides
from dimred.report.runs import Run
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
