"""dimred runs: all runs with their numbers, to look at or for pandas."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dimred.cli.arguments import flags, option
from dimred.errors import UserError, nearest
from dimred.runs.printing import table
from dimred.runs.terminal import printable

if TYPE_CHECKING:
    from dimred.report.runs import Run

FORMATS = ("table", "csv", "json")
#: of the table, by their names in MEASURES
SHOWN = {
    "test_accuracy": "test %",
    "dim": "dim",
    "density": "nonzero",
    "storage_bytes": "storage",
}


def runs(arguments: list[str]) -> int:
    form = option(arguments, "--format", "|".join(FORMATS)) or "table"
    named = option(arguments, "--runs")
    flags(arguments, options=("--runs", "--format"))
    if form not in FORMATS:
        raise UserError(f"unknown format {form!r}. {nearest(form, FORMATS)}")
    from dimred.report.rows import flat_row
    from dimred.report.runs import find_runs

    places = [Path(place).expanduser() for place in (*([named] if named else []), *arguments)] or [
        Path("outputs/runs")
    ]
    found = {run.folder.resolve(): run for place in places for run in find_runs(place)}
    if form == "table":
        print(as_table(list(found.values())))
        return 0
    rows = [flat_row(run) for run in found.values()]
    if form == "json":
        print(json.dumps(rows, indent=2))
    else:
        write_csv(rows)
    return 0


def as_table(found: Sequence[Run]) -> str:
    """A row for every run, below the folder that it lies in. Names stay whole, to be copied."""
    folders: dict[Path, list[Run]] = {}
    for run in found:
        folders.setdefault(run.folder.parent, []).append(run)
    parts = [
        f"{printable(str(folder))}\n" + table(("run", "state", *SHOWN.values()), map(row, runs))
        for folder, runs in folders.items()
    ]
    states = [run.state for run in found]
    counted = (
        ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "none"
    )
    noun = "run" if len(found) == 1 else "runs"
    return "\n\n".join([*parts, f"{len(found)} {noun}: {counted}"])


def row(run: Run) -> tuple[object, ...]:
    from dimred.report.measures import MEASURES

    values = {name: MEASURES[name].value(run.result) for name in SHOWN}
    cells = ["" if value is None else MEASURES[name].text(value) for name, value in values.items()]
    return (run.folder.name, run.state, *cells)


def write_csv(rows: Sequence[dict[str, Any]]) -> None:
    """Of all columns that any run has; lists as JSON."""
    header = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        cells = (row.get(key) for key in header)
        writer.writerow([as_cell(cell) for cell in cells])


def as_cell(value: Any) -> Any:
    if isinstance(value, list):
        return json.dumps(value)
    return printable(value) if isinstance(value, str) else value
