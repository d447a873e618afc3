"""A job of a cluster: some runs of a sweep, computed side by side on one machine.

Hydra's own launchers for Slurm and Ray pickle its state and compute one run a job, in the job's
process. A job of dimred is a list of composed configurations and needs no Hydra: it hands them to
the pool of `hydra/launcher=packed`, whatever their number."""

from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dimred.errors import UserError
from dimred.runs import sweep
from dimred.runs.packed.pool import shared_pool
from dimred.runs.packed.side_by_side import side_by_side
from dimred.runs.packed.worker import Outcome, Task
from dimred.runs.signals import handing_on_signals
from dimred.runs.terminal import listen


@dataclass
class Job:
    """Runs of a sweep. Each outcome goes into the sweep's folder, as soon as it is known.

    first: the number of the first run in the sweep
    at_once: runs at once on each GPU, or on the CPU; None: as many as fit
    working_folder: that of the command, for relative paths
    """

    tasks: Sequence[Task]
    first: int
    folder: str
    at_once: int | None
    working_folder: str = field(default_factory=os.getcwd)

    def __call__(self) -> None:
        """Compute what is left of the runs."""
        os.chdir(self.working_folder)
        listen(logging.INFO)
        with handing_on_signals(), shared_pool():
            side_by_side(self.tasks, self.first, self.folder, self.at_once, patient=True)

    def checkpoint(self) -> Any:
        """What submitit submits when it requeues the job: the job as it is. Finished runs are
        skipped."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def outcomes(self, failure: str) -> list[Outcome]:
        """What the runs have left; of those that have left nothing, the failure of the job."""
        return [self._outcome(i, failure) for i in range(len(self.tasks))]

    def _outcome(self, i: int, failure: str) -> Outcome:
        path = Path(self.folder) / f"{self.first + i}.json"
        if path.exists():
            found: Outcome = json.loads(path.read_text())
            return found
        overrides = [*self.tasks[i].overrides]
        outcome = {"overrides": overrides, "status": "failed", "reason": failure}
        sweep.write_outcome(self.folder, self.first + i, outcome)
        return outcome


def split(
    tasks: Sequence[Task], first: int, folder: str, size: int, at_once: int | None
) -> list[Job]:
    """Jobs of so many runs each."""
    starts = range(0, len(tasks), size)
    return [Job(tasks[start : start + size], first + start, folder, at_once) for start in starts]


def installed(package: str, launcher: str, brought_by: str) -> Any:
    """A package that dimred's extra of the launcher's name brings. UserError if it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(
            f"hydra/launcher={launcher} needs {package}: pip install 'dimred[{launcher}]', or "
            f"pip install {brought_by}"
        ) from None
