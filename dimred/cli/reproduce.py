"""dimred reproduce: run what is missing from a published table, and print it."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
from argparse import SUPPRESS
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dimred.cli.commands import Parser
from dimred.cli.computing import LAUNCHER, compute, words
from dimred.cli.table import Request, add_table, request
from dimred.errors import UserError, require
from dimred.files import folder_to_write

if TYPE_CHECKING:
    from dimred.report.runs import Run


def parser() -> Parser:
    parser = Parser(
        "reproduce",
        "TABLE [KEY=VALUE ...] [OPTION ...]",
        summary="Train the runs that a table lacks, and print the table.",
    )
    add_table(parser)
    parser.add_argument(
        "--jobs",
        metavar="N",
        help="runs side by side on each GPU, or on the CPU; auto: as many as fit",
    )
    parser.add_argument(
        "--launcher",
        metavar="NAME",
        help="compute the runs by hydra/launcher=NAME: slurm, ray, ...; hydra.launcher.KEY=VALUE "
        "are its options",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    parser.add_argument("--runs", help=SUPPRESS)  # an option of `dimred table`
    return parser


def run(arguments: list[str]) -> int:
    """Exit status 1 if a run failed."""
    given = parser().parse(arguments)
    if given.runs:
        raise UserError(
            "--runs is not an option of reproduce, which makes runs. Instead of --runs DIR, give "
            "outputs=DIR"
        )
    asked = request(given)
    if given.launcher:
        asked.where[LAUNCHER] = given.launcher
    if given.jobs and LAUNCHER in asked.where:
        raise UserError("--jobs and a launcher both say how to run. Leave out one")
    at_once = number_of(given.jobs) if given.jobs else 1
    from dimred.report.runs import find_runs
    from dimred.report.tables.costs import estimate, longest_first
    from dimred.report.tables.plan import left, sweeps

    place = outputs(asked)
    check_output(asked)
    runs = find_runs(place) if place.is_dir() else []
    jobs = left(asked.table, runs)
    print(f"{asked.table.heading}\n{estimate(jobs, runs)}")
    if given.dry_run:
        for box in sweeps(jobs):
            print(shlex.join(["dimred", "train", *words(box, asked), *launcher(at_once)]))
        return 0
    status = compute(longest_first(jobs, runs), asked, at_once)
    show(asked, command_of_whole(arguments), find_runs(place) if place.is_dir() else [])
    return status


def number_of(jobs: str) -> int | None:
    """The value of --jobs; None for auto."""
    whole = jobs.isdecimal() and int(jobs) > 0
    require(jobs == "auto" or whole, "--jobs", jobs, "1 or more, or auto")
    return int(jobs) if whole else None


def launcher(at_once: int | None) -> list[str]:
    """The settings of a sweep that computes so many runs at once."""
    if at_once == 1:
        return []
    packed = ["hydra/launcher=packed"]
    return packed if at_once is None else [*packed, f"hydra.launcher.n_jobs={at_once}"]


def command_of_whole(arguments: list[str]) -> str:
    """The command without --only: the whole table is written."""
    parser = Parser("reproduce", "TABLE", summary="")
    parser.add_argument("--only")
    _, others = parser.parse_known_args(arguments)
    return shlex.join(["dimred", "reproduce", *others])


def show(asked: Request, command: str, runs: Iterable[Run]) -> None:
    """Write the whole table, and print the part that --only selects."""
    from dimred.files import write
    from dimred.report.tables.fill import environment, fill, folders
    from dimred.report.tables.formats import as_json, markdown

    runs = list(runs)
    document = fill(asked.whole, runs, asked.where_of_a_run)
    used = folders(document)
    made = [
        f"written by `{command}`, which counts all runs in its folder",
        machine(),
        *environment(run for run in runs if run.folder in used),
    ]
    path = output(asked)
    write(path, (markdown(document) + "\n" + "".join(f"- {line}\n" for line in made)).encode())
    write(path.with_suffix(".json"), as_json(document | {"made": made}).encode())
    print(f"\n{markdown(asked.shown(document))}\n{path}")


def outputs(asked: Request) -> Path:
    return folder_to_write(asked.where.get("outputs", "outputs"), "outputs")


def output(asked: Request) -> Path:
    return outputs(asked) / "tables" / f"{file_name(asked)}.md"


def check_output(asked: Request) -> None:
    """UserError if the file to write holds another table."""
    path = output(asked)
    with suppress(OSError, UnicodeDecodeError):
        first = path.read_text().partition("\n")[0]
        if first != f"# {asked.whole.heading}":
            raise UserError(
                f"{path} holds another table ({first.strip('# ')!r}). Rename your table, or move "
                "that file"
            )


def file_name(asked: Request) -> str:
    """A changed table has a name of its own, different for every change."""
    change = str(asked.whole.change)
    changed = re.sub("[^A-Za-z0-9.=_]+", "-", change).strip("-")
    if len(changed) > 100:
        changed = f"{changed[:90]}-{hashlib.sha256(change.encode()).hexdigest()[:9]}"
    return f"{asked.whole.name}--{changed}" if changed else asked.whole.name


def machine() -> str:
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        name = found[1] if found else name
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}"
