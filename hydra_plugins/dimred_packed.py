"""Where Hydra looks for launchers. Every command that uses Hydra imports this file, so it imports
next to nothing."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class PackedLauncher(Launcher):
    """hydra/launcher=packed: the runs of a sweep side by side (dimred/runs/packed)."""

    def __init__(self, n_jobs: int | None = None) -> None:
        self.n_jobs = n_jobs
        self.config: DictConfig
        self.context: HydraContext

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """The task function is dimred's own; workers call what it calls."""
        self.context, self.config = hydra_context, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from dimred.runs.packed.launch import launch

        return launch(self.context, self.config, self.n_jobs, job_overrides, initial_job_idx)
