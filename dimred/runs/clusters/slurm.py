"""Jobs of Slurm, submitted and requeued by submitit."""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dimred.errors import UserError, counted
from dimred.runs.clusters.job import Job, installed

#: options that submitit has for all schedulers; others are Slurm's alone
GENERAL = ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node")

POLL = 5.0  # seconds between two questions whether a job is queued
PATIENCE = 60.0  # seconds until a controller that hangs is asked again
ANSWERS = 3  # that it is not, until its result is given up: a shared file system may be late

log = logging.getLogger(__name__)


def submit(jobs: Sequence[Job], options: Mapping[str, Any]) -> Iterator[str]:
    """Submit jobs as one array; then, for each in turn, wait for it."""
    submitit = installed("submitit", "slurm", "hydra-submitit-launcher")
    if not shutil.which("sbatch"):
        raise UserError(
            "hydra/launcher=slurm found no sbatch. Give the command on a machine that submits jobs"
        )
    given = {name: value for name, value in options.items() if value is not None}
    executor = submitit.AutoExecutor(
        given.pop("folder"), cluster="slurm", slurm_max_num_timeout=given.pop("max_num_timeout")
    )
    executor.update_parameters(**{name_of(name): value for name, value in given.items()})
    try:
        with executor.batch():
            submitted = [executor.submit(job) for job in jobs]
    except submitit.core.utils.FailedJobError as error:
        raise UserError(f"Slurm refuses the jobs: {' '.join(str(error).split())}") from error
    number = submitted[0].job_id.partition("_")[0]
    log.info(
        "job %s of Slurm: %s in %s. `scancel %s` ends them, `dimred status` shows them",
        *(number, counted(sum(len(job.tasks) for job in jobs), "run"), counted(len(jobs), "job")),
        number,
    )
    return failures(submitted, number)


def name_of(option: str) -> str:
    return option if option in GENERAL else f"slurm_{option}"


def failures(submitted: Sequence[Any], number: str) -> Iterator[str]:
    """Of each job of an array in turn."""
    try:
        yield from map(failure, submitted)
    except KeyboardInterrupt:
        log.info("the jobs of Slurm go on. `scancel %s` ends them", number)
        raise


def failure(submitted: Any) -> str:
    """Wait for a job; why it has no result, if it has none.

    submitit asks Slurm's accounting, which not all clusters have, and at last every ten minutes."""
    missed = 0
    while not submitted.paths.result_pickle.exists():
        if missed == ANSWERS:
            return (
                f"job {submitted.job_id} ended before its runs were done ({state(submitted)}). "
                f"Its log: {submitted.paths.stderr}"
            )
        time.sleep(POLL)
        missed = 0 if is_queued(submitted.job_id) else missed + 1
    from submitit.core.utils import FailedJobError

    try:
        submitted.result()
    except FailedJobError as error:
        reason = str(error).strip().splitlines()[-1]
        return f"job {submitted.job_id} failed: {reason}. Its log: {submitted.paths.stderr}"
    return ""


def is_queued(job_id: str) -> bool:
    """Whether a job waits or runs. One that Slurm requeues does."""
    found = squeue(job_id)
    return bool(found.stdout.strip()) or not (found.returncode == 0 or is_forgotten(found))


def state(submitted: Any) -> str:
    """CANCELLED, TIMEOUT, ..., which Slurm forgets after some minutes."""
    found = squeue(submitted.job_id, "-t", "all")
    if found.returncode == 0 or is_forgotten(found):
        return found.stdout.strip() or "Slurm does not know it any more"
    return f"squeue: {found.stderr.strip()}"


def is_forgotten(found: subprocess.CompletedProcess[str]) -> bool:
    """Whether a job has ended long ago."""
    return "Invalid job id" in found.stderr


def squeue(job_id: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["squeue", "-h", "-r", "-o", "%T", "-j", job_id, *options]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        why = f"no answer within {PATIENCE:g} s"
        log.warning("squeue -j %s: %s. Is Slurm's controller running?", job_id, why)
        return subprocess.CompletedProcess(command, 1, "", why)
