"""What hydra/launcher=slurm and hydra/launcher=ray do with the runs that Hydra composes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig

from dimred.errors import require
from dimred.runs.clusters import ray, slurm
from dimred.runs.clusters.job import Job, split
from dimred.runs.config.objectives import objectives, searches, value_of
from dimred.runs.packed.launch import require_number, tasks_of
from dimred.runs.packed.worker import Outcome, Task

OWN = ("runs_per_job", "n_jobs", "wait")  # options of which the scheduler knows nothing

#: submit jobs with options of the scheduler; then wait for one after the other, and say why it
#: ended without an outcome
SUBMIT: Mapping[str, Callable[[Sequence[Job], Mapping[str, Any]], Iterable[str]]] = {
    "slurm": slurm.submit,
    "ray": ray.submit,
}


def launch(
    name: str,
    options: Mapping[str, Any],
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
) -> list[JobReturn]:
    """Compute a batch of runs in jobs; for the sweeper, what each returns."""
    wait, names = options.get("wait", True), objectives(config.objective)
    require(
        wait or not searches(config.hydra.sweeper), "hydra.launcher.wait", wait, "true in a search"
    )
    tasks = tasks_of(context, config, job_overrides, first)
    returns = [JobReturn(overrides=each, status=JobStatus.COMPLETED) for each in job_overrides]
    for i, outcome in enumerate(of_cluster(name, options, tasks, first, config.hydra.sweep.dir)):
        returns[i].return_value = value_of(outcome, names, config.hydra.sweeper)
    return returns


def of_cluster(
    name: str, options: Mapping[str, Any], tasks: Sequence[Task], first: int, folder: str
) -> list[Outcome]:
    """What comes of the tasks on a cluster; nothing if the options say not to wait.

    first: the number of the first task in its sweep. folder: of the sweep"""
    size, at_once = options["runs_per_job"], options["n_jobs"]
    require(size >= 1, "hydra.launcher.runs_per_job", size, "1 or more")
    require_number(at_once)
    place = Path(folder).expanduser().absolute()
    place.mkdir(parents=True, exist_ok=True)
    jobs = split(tasks, first, str(place), size, at_once)
    theirs = {key: value for key, value in options.items() if key not in OWN}
    failures = SUBMIT[name](jobs, theirs)
    if not options.get("wait", True):
        return []
    outcomes = [job.outcomes(why) for job, why in zip(jobs, failures, strict=True)]
    return [*chain.from_iterable(outcomes)]
