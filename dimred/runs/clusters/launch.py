"""Submits the runs of a sweep as jobs of a cluster, and collects their outcomes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dimred.errors import require
from dimred.runs.clusters import ray, slurm
from dimred.runs.clusters.job import Job, split
from dimred.runs.packed.display import Display
from dimred.runs.packed.worker import Outcome, Task
from dimred.training.sweep_label import named_run

log = logging.getLogger(__name__)

OWN = ("runs_per_job", "n_jobs", "wait")  # options of which the scheduler knows nothing

#: submit jobs with options of the scheduler; then wait for one after the other, and say why it
#: ended without an outcome
SUBMIT: Mapping[str, Callable[[Sequence[Job], Mapping[str, Any]], Iterable[str]]] = {
    "slurm": slurm.submit,
    "ray": ray.submit,
}


def of_cluster(
    name: str, options: Mapping[str, Any], tasks: Sequence[Task], first: int, folder: str
) -> list[Outcome]:
    """The outcomes of tasks on a cluster; none if the options say not to wait.

    first: the number of the first task in its sweep. folder: of the sweep"""
    size, at_once = options["runs_per_job"], options["n_jobs"]
    require(size >= 1, "hydra.launcher.runs_per_job", size, "1 or more")
    jobs = split(tasks, first, folder, size, at_once)
    theirs = {key: value for key, value in options.items() if key not in OWN}
    failures = SUBMIT[name](jobs, theirs)
    if not options.get("wait", True):
        return []
    outcomes: list[Outcome] = []
    with Display(len(tasks)) as display:
        for job, why in zip(jobs, failures, strict=True):
            for task, outcome in zip(job.tasks, job.outcomes(why), strict=True):
                show(display, task, outcome)
                outcomes.append(outcome)
    return outcomes


def show(display: Display, task: Task, outcome: Outcome) -> None:
    """Print what the pool of a job has printed into the log of the job."""
    if outcome["status"] != "done":
        with named_run(task.label, task.values):
            log.error("%s", outcome["reason"])
    display.show(task, outcome)
