"""A tracker of one's own, as a user writes it; it can fail or kill its process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimred.trackers.base import Status, TrackedRun, Tracker


@dataclass
class Lines(Tracker):
    """Writes its calls to a file, a line each. fail: the call that raises; kill, stop: the call in
    which the process is killed, or stopped as by Ctrl-C, once."""

    path: str
    fail: str | None = None
    kill: str | None = None
    stop: str | None = None

    def begin(self, run: TrackedRun) -> str:
        self.write("begin", id=run.id, step=run.step, config=run.config)
        return run.id or "an id"

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.write("log", step, **numbers)

    def finish(self, step: int, numbers: Mapping[str, float], files: Sequence[Path]) -> None:
        self.write("finish", **numbers, files=[path.name for path in files if path.exists()])

    def end(self, status: Status) -> None:
        self.write("end", status=status)

    def write(self, call: str, *at: int, **values: Any) -> None:
        name = call + "".join(f" {step}" for step in at)
        if self.fail == call:
            raise OSError("no connection\nto the server")
        with open(self.path, "a") as file:
            file.write(json.dumps([name, values]) + "\n")
        ended = Path(f"{self.path}.ended")
        if name in (self.kill, self.stop) and not ended.exists():
            ended.touch()
            if self.stop:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGKILL)


def calls(path: Path, name: str = "") -> list[Any]:
    """The calls of `Lines`, or the values of those of one name."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [values for call, values in found if call.split()[0] == name] if name else found
