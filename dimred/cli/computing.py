"""Compute the missing runs of a table: side by side on this machine, as jobs of a cluster, or by
another launcher of Hydra."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dimred.cli.table import Request
from dimred.errors import UserError
from dimred.runs.terminal import printable

if TYPE_CHECKING:
    from dimred.report.tables.plan import Box, Job

LAUNCHER = "hydra/launcher"


def compute(jobs: Sequence[Job], asked: Request, at_once: int | None) -> int:
    """Compute the jobs in their order; the exit status. Runs that another command computes are left
    to it, and taken later if it does not end them.

    at_once: on this machine, unless the request names a launcher"""
    from dimred.report.tables.plan import sweeps
    from dimred.runs.config.composition import launcher_and_folder
    from dimred.runs.packed.commands import run_commands, tasks_of_commands

    if not jobs:
        return 0
    name = asked.where.get(LAUNCHER)
    if name not in (None, "packed", "slurm", "ray"):
        return one_by_one(sweeps(jobs), asked)
    commands = [command(job, asked) for job in jobs]
    if name is None:
        return int(not run_commands(commands, at_once))
    where = [f"{key}={value}" for key, value in asked.where.items()]
    options, folder = launcher_and_folder(where)
    if name == "packed":
        return int(not run_commands(commands, options["n_jobs"]))
    from dimred.runs.launchers import of_launcher

    tasks = tasks_of_commands(commands)
    known = [task for task in tasks if task is not None]
    outcomes = of_launcher(name, options, known, 0, folder)
    done = all(outcome["status"] == "done" for outcome in outcomes)
    return int(not done or len(known) < len(tasks))


def command(job: Job, asked: Request) -> list[str]:
    """The overrides of a run."""
    settings = {**job.overrides, **asked.where_of_a_run}
    return [f"{key}={value}" for key, value in settings.items()]


def one_by_one(boxes: Sequence[Box], asked: Request) -> int:
    """Sweep after sweep; the exit status."""
    status = 0
    for i, box in enumerate(boxes):
        print(f"\n-- sweep {i + 1} of {len(boxes)} --", flush=True)
        status = max(status, sweep(words(box, asked)))
    return status


def words(box: Box, asked: Request) -> list[str]:
    return [
        "-m",
        *(f"{key}={','.join(values)}" for key, values in box.items()),
        *(f"{key}={value}" for key, value in asked.where.items()),
    ]


def sweep(arguments: list[str]) -> int:
    """`dimred train -m ...`; return the exit status. Failures are reported and do not end the
    other sweeps; a signal does."""
    from dimred.cli import train

    try:
        return train.run(arguments)
    except UserError as error:  # no run of this sweep could start
        print(f"dimred: {printable(str(error))}", file=sys.stderr)
        return 1
