"""Submits the runs of a sweep as jobs of a cluster, and collects what comes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from dimred.errors import require
from dimred.runs.clusters import ray, slurm
from dimred.runs.clusters.job import Job, split
from dimred.runs.packed.pool import require_number
from dimred.runs.packed.worker import Outcome, Task

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
    """What comes of the tasks on a cluster; nothing if the options say not to wait.

    first: the number of the first task in its sweep. folder: of the sweep"""
    size, at_once = options["runs_per_job"], options["n_jobs"]
    require(size >= 1, "hydra.launcher.runs_per_job", size, "1 or more")
    require_number(at_once)
    jobs = split(tasks, first, folder, size, at_once)
    theirs = {key: value for key, value in options.items() if key not in OWN}
    failures = SUBMIT[name](jobs, theirs)
    if not options.get("wait", True):
        return []
    outcomes = [job.outcomes(why) for job, why in zip(jobs, failures, strict=True)]
    return [*chain.from_iterable(outcomes)]
