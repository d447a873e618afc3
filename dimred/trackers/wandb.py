"""Weights & Biases, online or offline."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dimred.trackers.base import Status, TrackedRun, Tracker

log = logging.getLogger(__name__)


@dataclass
class WandB(Tracker):
    project: str = "dimred"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    mode: Literal["online", "offline", "disabled"] | None = None
    dir: str | None = None

    def begin(self, run: TrackedRun) -> str:
        import wandb

        self.wandb = wandb
        self.run: Any = wandb.init(
            id=run.id,
            resume="allow",
            name=run.name,
            config=dict(run.config),
            project=self.project,
            entity=self.entity,
            group=self.group,
            tags=self.tags,
            mode=self.mode,
            dir=Path(self.dir or run.folder).expanduser(),
            settings=wandb.Settings(silent=True, console="off"),
        )
        if not self.run.offline:
            log.info("tracker=wandb: %s", self.run.url)
        return self.run.id

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step, commit=True)

    def finish(self, step: int, numbers: Mapping[str, float], files: Sequence[Path]) -> None:
        self.run.summary.update(dict(numbers))
        artefact = self.wandb.Artifact(f"run-{self.run.id}", type="run")
        for path in files:
            artefact.add_file(str(path))
        self.run.log_artifact(artefact)

    def end(self, status: Status) -> None:
        self.run.finish(exit_code=0 if status == "done" else 1)
