"""dimred status: what is computed now, where, and how long it will take."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dimred.cli.commands import Parser, add_json, local_folder
from dimred.errors import UserError
from dimred.files import Json
from dimred.runs.printing import states, table
from dimred.runs.terminal import printable, width
from dimred.storage.lease import NAME, is_renewed, read_lease

if TYPE_CHECKING:
    from dimred.report.runs import Run

EVERY = 2.0  # seconds between two looks of --watch
CLEAR = "\x1b[H\x1b[J"
COLUMNS = {"run": "run", "state": "state", "at": "at", "left": "left", "where": "where"}


def parser() -> Parser:
    parser = Parser(
        "status",
        "[DIR] [--watch] [--json]",
        summary="List the runs that are not done: state, progress, time left, and the process "
        "that computes them.",
        more="A run is running while its process, on any machine, renews its lease. It is waiting "
        "if it was interrupted: repeat its command to resume it.",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=local_folder,
        metavar="DIR",
        help="where the runs are (default: outputs/runs)",
    )
    parser.add_argument("--runs", type=local_folder, metavar="DIR", help="the same as DIR")
    parser.add_argument("--watch", action="store_true", help="look again until no run is running")
    add_json(parser)
    return parser


def run(arguments: list[str]) -> int:
    given = parser().parse(arguments)
    if given.folder and given.runs:
        raise UserError(f"give one folder: {given.folder}, or --runs {given.runs}")
    folder: Path = given.folder or given.runs or local_folder("outputs/runs")
    try:
        while True:
            rows = look(folder)
            shown = json.dumps(rows, indent=2) if given.json else page(rows)
            clear = CLEAR if given.watch and sys.stdout.isatty() else ""
            print(f"{clear}{shown}", flush=True)
            if not given.watch or all(row["state"] != "running" for row in rows):
                return 0
            time.sleep(EVERY)
    except KeyboardInterrupt:  # the usual end of watching
        return 0


def look(folder: Path) -> list[Json]:
    """A row for each run."""
    from dimred.report.runs import find_runs

    return [row(each) for each in find_runs(folder)]


def row(run: Run) -> Json:
    about: Json = {"folder": str(run.folder), "run": run.folder.name, "state": run.state}
    if run.state in ("failed", "damaged"):
        return {**about, "at": run.why}
    if run.state == "done":
        return about
    lease = read_lease(Path(str(run.folder)) / NAME)
    if lease is None or not is_renewed(lease):
        return {**about, "state": "waiting", "at": last_epoch(run)}
    return {
        **about,
        "state": "running",
        "at": lease.get("doing", "preparing"),
        "fraction": lease.get("fraction"),
        "seconds_left": seconds_left(lease),
        "host": lease.get("host"),
        "process": lease.get("process"),
    }


def seconds_left(lease: Json) -> float | None:
    """If the rest takes as long as what is done took."""
    done, seconds = lease.get("fraction"), lease.get("seconds")
    return seconds * (1 - done) / done if done and seconds else None


def last_epoch(run: Run) -> str:
    """The last evaluation of a run that nobody computes."""
    path = run.folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    try:
        line = json.loads(lines[-1])
        return f"epoch {math.ceil(line['epoch'])}, step {line['step']}"
    except (LookupError, ValueError, TypeError):  # none, or half a line
        return "no epoch done"


# -- text --------------------
def page(rows: Sequence[Json]) -> str:
    open_ones = [row for row in rows if row["state"] != "done"]
    parts = []
    if open_ones:
        parts.append(table(COLUMNS.values(), map(cells, open_ones), width(), wrap=2))
    return "\n\n".join([*parts, states(sorted(row["state"] for row in rows))])


def cells(row: Json) -> list[str]:
    from dimred.report.tables.costs import clock

    left: Any = row.get("seconds_left")
    where = f"{row['host']}, process {row['process']}" if "host" in row else ""
    texts = {
        **row,
        "at": row["at"].partition("\n")[0],
        "left": "" if left is None else clock(left),
        "where": where,
    }
    return [printable(str(texts[column])) for column in COLUMNS]
