"""dimred runs: list all runs with their numbers, as a table or for pandas."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from dimred.cli.commands import Parser
from dimred.errors import as_typed
from dimred.runs.printing import states, table
from dimred.runs.terminal import printable, width

if TYPE_CHECKING:
    from dimred.report.remote import Place
    from dimred.report.runs import Run

MOST_KEYS = 6  # columns of keys in which runs differ
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
        "configuration, for pandas. The table has a column for each key in which the runs of a "
        "folder differ.",
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
    fit = width() if sys.stdout.isatty() else None
    parts = [
        f"{printable(str(folder))}\n{of_folder(runs, fit)}" for folder, runs in folders.items()
    ]
    return "\n\n".join([*parts, states([run.state for run in found])])


def of_folder(runs: Sequence[Run], fit: int | None) -> str:
    """A row for every run: its name and state, the keys in which the runs differ, and numbers.
    Where these do not fit, columns are left out: numbers from the last one on, then keys."""
    from dimred.report.apart import keys_apart, titles

    differ = keys_apart(runs)
    shown = titles(differ[:MOST_KEYS], ("run", "state", *SHOWN.values()))
    columns = columns_of(runs, shown)
    # one key and one number stay
    optional = [*list(shown.values())[1:], *list(SHOWN.values())[1:]]
    while fit is not None and optional and wide(columns) > fit:
        del columns[optional.pop()]
    text = table(columns, zip(*columns.values(), strict=True))
    if hidden := [key for key in differ if shown.get(key) not in columns]:
        text += f"\nnot shown (see --format csv): {', '.join(hidden)}"
    return text


def columns_of(runs: Sequence[Run], keys: Mapping[str, str]) -> dict[str, list[str]]:
    """The cells of each column, by its title. keys: those with a column, and its title."""
    from dimred.report.apart import value_in
    from dimred.report.compose import flat

    columns: dict[str, list[str]] = {
        "run": [run.folder.name for run in runs],
        "state": [run.state for run in runs],
    }
    configs = [flat(run.config) for run in runs]
    for key, title in keys.items():
        columns[title] = [str(as_typed(value_in(config, key))) for config in configs]
    for name, title in SHOWN.items():
        columns[title] = [number_in(run, name) for run in runs]
    return columns


def wide(columns: Mapping[str, Sequence[str]]) -> int:
    return sum(max(map(len, (title, *cells))) + 2 for title, cells in columns.items()) - 2


def number_in(run: Run, name: str) -> str:
    from dimred.report.measures import MEASURES

    value = MEASURES[name].value(run.result)
    return "" if value is None else MEASURES[name].text(value)


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
