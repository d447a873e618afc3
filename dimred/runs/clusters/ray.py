"""Jobs of a Ray cluster. If a node dies, Ray gives its jobs to others."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dimred.errors import UserError, counted
from dimred.runs.clusters.job import Job, installed

log = logging.getLogger(__name__)


def submit(jobs: Sequence[Job], options: Mapping[str, Any]) -> Iterator[str]:
    """Submit jobs; then, for each in turn, wait for it."""
    ray = installed("ray", "ray", "hydra-ray-launcher")
    given = {name: value for name, value in options.items() if value is not None}
    address = given.pop("address")
    if not ray.is_initialized():
        try:
            # what jobs print is in Ray's logs: the command prints a line for each run
            ray.init(address=address, log_to_driver=False)
        except ConnectionError as error:
            raise UserError(
                f"there is no Ray cluster at hydra.launcher.address={address}. `ray start --head` "
                "starts one; address=local uses this machine for this sweep"
            ) from error
    remote = ray.remote(**given)(compute)
    submitted = [remote.remote(job) for job in jobs]
    runs = sum(len(job.tasks) for job in jobs)
    log.info("%s in %s of Ray", counted(runs, "run"), counted(len(jobs), "job"))
    return map(failure, submitted)


def compute(job: Job) -> None:
    job()


def failure(submitted: Any) -> str:
    """Wait for a job; why it has no result, if it has none."""
    import ray

    try:
        ray.get(submitted)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        return f"its job of Ray ended: {reason}"
    return ""
