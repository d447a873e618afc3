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
from dimred.runs import sweep
from dimred.runs.clusters.job import Job, split
from dimred.runs.packed.launch import require_number, tasks_of

OWN = ("runs_per_job", "n_jobs", "wait")  # options of which the scheduler knows nothing

#: submits jobs with options of the scheduler; then waits for one after the other, and says why it
#: ended without an outcome
Submit = Callable[[Sequence[Job], Mapping[str, Any]], Iterable[str]]


def launch(
    submit: Submit,
    options: Mapping[str, Any],
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
) -> list[JobReturn]:
    """Compute a batch of runs in jobs; for the sweeper, what each returns."""
    size, at_once, wait = options["runs_per_job"], options["n_jobs"], options.get("wait", True)
    require(size >= 1, "hydra.launcher.runs_per_job", size, "1 or more")
    require_number(at_once)
    searches = sweep.searches(config.hydra.sweeper)
    require(wait or not searches, "hydra.launcher.wait", wait, "true in a search")
    folder = Path(config.hydra.sweep.dir).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    tasks = tasks_of(context, config, job_overrides, first)
    jobs = split(tasks, first, str(folder), size, at_once)
    theirs = {name: value for name, value in options.items() if name not in OWN}
    failures = submit(jobs, theirs)
    returns = [JobReturn(overrides=each, status=JobStatus.COMPLETED) for each in job_overrides]
    if wait:
        outcomes = [job.outcomes(why) for job, why in zip(jobs, failures, strict=True)]
        for i, outcome in enumerate(chain.from_iterable(outcomes)):
            returns[i].return_value = sweep.value_of(outcome, config.hydra.sweeper)
    return returns
