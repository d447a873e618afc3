"""Trackio: a local database with W&B's interface, or a Hugging Face Space."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimred.trackers.base import Status, TrackedRun, Tracker


@dataclass
class Trackio(Tracker):
    project: str = "dimred"
    space_id: str | None = None

    def begin(self, run: TrackedRun) -> str:
        import trackio

        self.trackio = trackio
        with redirect_stdout(io.StringIO()):
            self.run: Any = trackio.init(
                self.project,
                name=run.id or run.name,
                config=dict(run.config),
                space_id=self.space_id,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return self.run.name

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step)

    def finish(self, step: int, numbers: Mapping[str, float], files: Sequence[Path]) -> None:
        self.log(step, numbers)
        artefact = self.trackio.Artifact(self.run.name, type="run")
        for path in files:
            artefact.add_file(str(path))
        self.run.log_artifact(artefact)

    def end(self, status: Status) -> None:
        with redirect_stdout(io.StringIO()):
            self.trackio.finish()
