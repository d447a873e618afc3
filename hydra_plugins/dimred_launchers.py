"""Where Hydra looks for launchers. Every command that uses Hydra imports this file, so it imports
next to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OwnLauncher(Launcher):
    """hydra/launcher=NAME. Its options are those of conf/hydra/launcher/NAME.yaml."""

    name = ""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.config: DictConfig
        self.context: HydraContext

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """The task function is dimred's own; workers and jobs call what it calls."""
        self.context, self.config = hydra_context, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from dimred.runs.launchers import launch

        about = self.context, self.config, job_overrides, initial_job_idx
        return launch(self.name, self.options, *about)


class PackedLauncher(OwnLauncher):
    name = "packed"


class SlurmLauncher(OwnLauncher):
    name = "slurm"


class RayLauncher(OwnLauncher):
    name = "ray"


class OwnRay(SearchPathPlugin):
    """hydra-ray-launcher stores a configuration that has the name of dimred's, hydra/launcher/ray,
    and Hydra would take it for the schema of dimred's. Other programs keep it."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from dimred.runs.config.files import conf

        places = [str(each.path).removeprefix("file://") for each in search_path.get_path()]
        if str(conf()) in places:
            launchers: Any = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
            launchers.pop("ray.yaml", None)
