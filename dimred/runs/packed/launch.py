"""What hydra/launcher=packed does: Hydra composes the runs, a pool computes them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from dimred.errors import require
from dimred.runs import sweep
from dimred.runs.config.objectives import objectives, require_directions, value_of
from dimred.runs.packed.display import Display, level_of_screen
from dimred.runs.packed.pool import the_pool
from dimred.runs.packed.worker import Task, task_of


def launch(
    context: HydraContext,
    config: DictConfig,
    at_once: int | None,
    job_overrides: Sequence[Sequence[str]],
    first: int,
) -> list[JobReturn]:
    """Compute a batch of runs; for the sweeper, what each returns."""
    require_number(at_once)
    names = objectives(config.objective)
    Path(config.hydra.sweep.dir).expanduser().mkdir(parents=True, exist_ok=True)
    jobs = tasks_of(context, config, job_overrides, first)
    returns = [JobReturn(overrides=overrides) for overrides in job_overrides]
    with Display(len(jobs)) as display:
        for i, outcome in the_pool(at_once).outcomes(jobs, more=first > 0):
            sweep.write_outcome(config.hydra.sweep.dir, first + i, outcome)
            display.show(jobs[i], outcome)
            returns[i].status = JobStatus.COMPLETED
            returns[i].return_value = value_of(outcome, names, config.hydra.sweeper)
    return returns


def require_number(at_once: int | None) -> None:
    whole = at_once is None or (isinstance(at_once, int) and at_once >= 1)
    require(whole, "hydra.launcher.n_jobs", at_once, "a whole number, 1 or more, or null")


def tasks_of(
    context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]], first: int
) -> list[Task]:
    """The runs of a batch, of which the first has a number in its sweep."""
    setup_globals()
    require_directions(config.hydra.sweeper, objectives(config.objective))
    return [job(context, config, first + i, each) for i, each in enumerate(job_overrides)]


def job(context: HydraContext, config: DictConfig, number: int, overrides: Sequence[str]) -> Task:
    """The run that Hydra composes of these overrides."""
    cfg = context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(cfg):
        cfg.hydra.job.id = cfg.hydra.job.num = number
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(cfg)  # for ${hydra:...}
    try:
        typed: Any = OmegaConf.to_container(cfg.hydra.overrides.task)
        with open_dict(cfg):
            choices = sweep.choices_of(cfg)
            del cfg["hydra"]
        label = sweep.label(number + 1, typed)
        return task_of(cfg, choices, typed, sys.argv, label, level_of_screen())
    finally:
        HydraConfig.instance().cfg = before
