"""TensorBoard: event files, by default in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimred.trackers.base import Status, TrackedRun, Tracker


@dataclass
class TensorBoard(Tracker):
    dir: str | None = None

    def begin(self, run: TrackedRun) -> str:
        from torch.utils.tensorboard import SummaryWriter

        place = run.folder / "tensorboard"
        if self.dir is not None:
            place = Path(self.dir).expanduser() / run.name
        # TensorBoard hides what another process has written after the step that we continue from
        self.writer: Any = SummaryWriter(str(place), purge_step=run.step + 1)
        if run.id is None:
            self.writer.add_text("config", f"```json\n{json.dumps(run.config, indent=2)}\n```", 0)
        return str(place)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, number in numbers.items():
            self.writer.add_scalar(name, number, step)
        self.writer.flush()

    def finish(self, step: int, numbers: Mapping[str, float], files: Sequence[Path]) -> None:
        """The files lie in the run's folder."""
        self.log(step, numbers)

    def end(self, status: Status) -> None:
        self.writer.close()
