"""What a tracker does: begin a run or continue it, log numbers, store the final ones, end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Status = Literal["done", "failed", "interrupted"]


@dataclass(frozen=True)
class TrackedRun:
    """The run that a tracker begins to track, or continues.

    name: the name of its folder, which ends in the digest of its configuration
    config: its configuration, with the names of the chosen files as "choices"
    id: what `Tracker.begin` returned at the first start; None at the first start
    step: the last step that was logged; 0 if none was
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    id: str | None = None
    step: int = 0


class Tracker:
    """A tracker of one run. A call may raise: the run goes on without the tracker.

    Steps count the optimiser steps of the whole run, over all training phases. They increase from
    call to call, also when an interrupted run is continued.
    """

    def begin(self, run: TrackedRun) -> str:
        """Begin to track a run, or continue `run.id`. Return an id by which it can be
        continued."""
        raise NotImplementedError

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the numbers of an epoch, or of the end of a training phase."""
        raise NotImplementedError

    def finish(self, step: int, numbers: Mapping[str, float], files: Sequence[Path]) -> None:
        """Store the final numbers, which are named "final/...", and files."""
        raise NotImplementedError

    def end(self, status: Status) -> None:
        """Stop tracking. A run that failed or was interrupted may be continued later."""
