"""dimred runs: list all runs with their numbers, as a table or for pandas."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from dimred.cli.commands import Parser
from dimred.errors import counted
from dimred.runs.printing import table
from dimred.runs.terminal import printable

if TYPE_CHECKING:
    from dimred.report.remote import Place
    from dimred.report.runs import Run

#: the columns of the table, by their names in MEASURES
SHOWN = {
    "test_accuracy": "test %",
    "dim": "dim",
    "density": "nonzero",
    "storage_bytes": "storage",
}


def parser() -> Parser:
    parser = Parser(
        "runs",
        "[DIR ...] [--format table|csv|json]",
        summary="List all runs with state and numbers; as csv or json with all numbers and the "
        "configuration, for pandas.",
    )
    parser.add_argument(
        "folders",
        nargs="*",
        default=[],
        metavar="DIR",
        help="where the runs are, folders or URLs (default: outputs/runs)",
    )
    parser.add_argument("--runs", metavar="DIR", help="the same as DIR")
    parser.add_argument(
        "--format", choices=("table", "csv", "json"), default="table", help="default: table"
    )
    return parser


def run(arguments: list[str]) -> int:
    given = parser().parse(arguments)
    from dimred.report.remote import place_of
    from dimred.report.rows import flat_row
    from dimred.report.runs import find_in

    named = [given.runs] if given.runs else []
    places = [place_of(place) for place in [*named, *given.folders] or ["outputs/runs"]]
    found = find_in(places)
    if given.format == "table":
        print(as_table(found))
        return 0
    rows = [flat_row(run) for run in found]
    if given.format == "json":
        print(json.dumps(rows, indent=2))
    else:
        write_csv(rows)
    return 0


def as_table(found: Sequence[Run]) -> str:
    """The runs below the folder that they are in. Names are never wrapped, so that they can be
    copied."""
    folders: dict[Place, list[Run]] = {}
    for run in found:
        folders.setdefault(run.folder.parent, []).append(run)
    parts = [
        f"{printable(str(folder))}\n" + table(("run", "state", *SHOWN.values()), map(row, runs))
        for folder, runs in folders.items()
    ]
    states = [run.state for run in found]
    of_states = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    return "\n\n".join([*parts, f"{counted(len(found), 'run')}: {', '.join(of_states) or 'none'}"])


def row(run: Run) -> tuple[object, ...]:
    from dimred.report.measures import MEASURES

    cells = []
    for name in SHOWN:
        value = MEASURES[name].value(run.result)
        cells.append("" if value is None else MEASURES[name].text(value))
    return (run.folder.name, run.state, *cells)


def write_csv(rows: Sequence[dict[str, Any]]) -> None:
    """Write every column that any run has; lists as JSON."""
    header = list(dict.fromkeys(chain.from_iterable(rows)))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([as_cell(row.get(key)) for key in header])


def as_cell(value: Any) -> Any:
    if isinstance(value, list):
        return json.dumps(value)
    return printable(value) if isinstance(value, str) else value
