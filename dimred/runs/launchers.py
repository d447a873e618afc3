"""What hydra/launcher=packed, slurm and ray do: Hydra composes the runs of a sweep, a pool of
workers or the jobs of a cluster compute them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from dimred.errors import require
from dimred.runs import sweep
from dimred.runs.clusters.launch import of_cluster
from dimred.runs.config.objectives import objectives, require_directions, searches, value_of
from dimred.runs.packed.display import level_of_screen
from dimred.runs.packed.pool import require_number
from dimred.runs.packed.side_by_side import side_by_side
from dimred.runs.packed.worker import Outcome, Task, task_of


def launch(
    name: str,
    options: Mapping[str, Any],
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
) -> list[JobReturn]:
    """Compute a batch of runs, of which the first has a number in its sweep; for the sweeper, what
    each returns."""
    names, sweeper = objectives(config.objective), config.hydra.sweeper
    require_directions(sweeper, names)
    wait = options.get("wait", True)
    require(wait or not searches(sweeper), "hydra.launcher.wait", wait, "true in a search")
    tasks = tasks_of(context, config, job_overrides, first)
    returns = [JobReturn(overrides=each, status=JobStatus.COMPLETED) for each in job_overrides]
    for i, outcome in enumerate(of_launcher(name, options, tasks, first, config.hydra.sweep.dir)):
        returns[i].return_value = value_of(outcome, names, sweeper)
    return returns


def of_launcher(
    name: str, options: Mapping[str, Any], tasks: Sequence[Task], first: int, folder: str
) -> list[Outcome]:
    """The outcomes of tasks, which are also written to the folder of their sweep."""
    require_number(options["n_jobs"])
    place = Path(folder).expanduser().absolute()
    place.mkdir(parents=True, exist_ok=True)
    if name == "packed":
        return side_by_side(tasks, first, str(place), options["n_jobs"], more=first > 0)
    return of_cluster(name, options, tasks, first, str(place))


def tasks_of(
    context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]], first: int
) -> list[Task]:
    setup_globals()
    return [task(context, config, first + i, each) for i, each in enumerate(job_overrides)]


def task(context: HydraContext, config: DictConfig, number: int, overrides: Sequence[str]) -> Task:
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
