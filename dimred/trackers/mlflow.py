"""MLflow: a tracking server, or a database on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimred.runs.config.leaves import leaves
from dimred.trackers.base import Status, TrackedRun, Tracker

#: MLflow's names of the ends of a run
STATUS: Mapping[Status, str] = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
MOST_PARAMETERS = 100  # in one request


@dataclass
class MLflow(Tracker):
    uri: str | None = None
    experiment: str = "dimred"

    def begin(self, run: TrackedRun) -> str:
        from mlflow import MlflowClient

        self.client: Any = MlflowClient(tracking_uri=self.uri)
        if run.id is not None:
            self.client.update_run(run.id, status="RUNNING")
            self.id = run.id
        else:
            self.id = self.client.create_run(self._experiment(), run_name=run.name).info.run_id
            self._log_config(run.config)
        return self.id

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, number, now, step) for name, number in numbers.items()]
        self.client.log_batch(self.id, metrics=metrics)

    def finish(self, step: int, numbers: Mapping[str, float], files: Sequence[Path]) -> None:
        self.log(step, numbers)
        for path in files:
            self.client.log_artifact(self.id, str(path))

    def end(self, status: Status) -> None:
        self.client.set_terminated(self.id, STATUS[status])

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return self.client.create_experiment(self.experiment)
            except MlflowException:  # another process has just created it
                found = self.client.get_experiment_by_name(self.experiment)
        return found.experiment_id

    def _log_config(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        parameters = [Param(".".join(keys), str(value)) for keys, value in leaves(config)]
        for first in range(0, len(parameters), MOST_PARAMETERS):
            some = parameters[first : first + MOST_PARAMETERS]
            self.client.log_batch(self.id, params=some)
