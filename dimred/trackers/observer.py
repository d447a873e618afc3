"""Calls the trackers of a run, and contains their failures."""

from __future__ import annotations

import json
import logging
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from dimred.errors import ProcessLost, RunIsBusy
from dimred.files import Json, write
from dimred.net import Net
from dimred.trackers.base import Status, TrackedRun, Tracker
from dimred.training.loop import Train
from dimred.training.observers import Observer

log = logging.getLogger(__name__)
MOST_LETTERS = 200  # of the reason in a warning
ARTEFACTS = ("config.yaml", "result.json", "masks.npz")


@dataclass
class Record:
    """What a file of the run folder keeps of a tracker, so that a resumed run continues it.

    settings: of the tracker; with other ones, it begins anew
    step: the last one that was logged. A run that is resumed computes the steps after its
    checkpoint again, to the same bits, so they need not be logged again
    """

    settings: Json
    id: str | None = None
    step: int = 0
    finished: bool = False


@dataclass
class Tracked:
    """One tracker and its record. When it raises, a warning is logged, and it is not called
    again."""

    name: str
    settings: Json
    make: Callable[[], Tracker]
    path: Path
    tracker: Tracker | None = None
    record: Record = field(init=False)

    def begin(self, folder: Path, config: Json) -> None:
        with self._contained():
            self.record = self._read()
            tracker = self.make()
            run = TrackedRun(folder.name, folder, config, self.record.id, self.record.step)
            self.record.id = tracker.begin(run)
            self._write()
            self.tracker = tracker

    def lacks(self, step: int) -> bool:
        return self.tracker is not None and step > self.record.step

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        assert self.tracker
        with self._contained():
            # before the call: a process that is killed within it must not log the step twice
            self.record.step = step
            self._write()
            self.tracker.log(step, numbers)

    def finish(self, numbers: Mapping[str, float], files: Sequence[Path]) -> None:
        if self.tracker is None or self.record.finished:
            return
        with self._contained():
            self.tracker.finish(self.record.step, numbers, files)
            self.record.finished = True
            self._write()

    def end(self, status: Status) -> None:
        if self.tracker is not None:
            with self._contained():
                self.tracker.end(status)

    def lacks_final_numbers(self) -> bool:
        """Whether it has begun to track the run, which is finished, and did not get to its end."""
        with self._contained():
            record = self._read()
            if record.id is None:
                log.info("tracker=%s: the run was finished without it, nothing is sent", self.name)
            return record.id is not None and not record.finished
        return False

    def _read(self) -> Record:
        if self.path.exists():
            record = Record(**json.loads(self.path.read_text()))
            if record.settings == self.settings:
                return record
        return Record(self.settings)

    def _write(self) -> None:
        write(self.path, json.dumps(asdict(self.record)).encode())

    @contextmanager
    def _contained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.tracker = None
            why = reason(error, self.name)
            log.warning("tracker=%s stopped: %s. The run goes on", self.name, why)


class Trackers(Observer):
    """The trackers of the run in a folder."""

    def __init__(self, trackers: Sequence[Tracked], folder: Path) -> None:
        self.all, self.folder = trackers, folder

    def begin(self, config: Json) -> None:
        for each in self.all:
            each.begin(self.folder, config)

    def after_evaluation(self, train: Train, line: Mapping[str, Any]) -> None:
        step = train.steps_done
        if lacking := [each for each in self.all if each.lacks(step)]:
            numbers = scalars(line) | densities(train.net)
            del numbers["step"]  # within a training, of which there may be several
            for each in lacking:
                each.log(step, numbers)

    def finish(self, result: Json) -> None:
        """Store the final numbers and end. `result` is in result.json already."""
        measures = scalars(result) | scalars(result.get("measures", {}))
        numbers = {f"final/{key}": value for key, value in measures.items()}
        for each in self.all:
            each.finish(numbers, [self.folder / name for name in ARTEFACTS])
        self.end("done")

    def complete(self, config: Json, result: Json) -> None:
        """Store the final numbers of a run whose process was killed before it could."""
        self.all = [each for each in self.all if each.lacks_final_numbers()]
        self.begin(config)
        self.finish(result)

    def end(self, status: Status) -> None:
        for each in self.all:
            each.end(status)


@contextmanager
def ending(trackers: Trackers) -> Iterator[None]:
    """End the tracking of a run that the block cannot finish."""
    try:
        yield
    except BaseException as error:
        # what another process took over is tracked on by that one
        goes_on = isinstance(error, (ProcessLost, RunIsBusy))
        failed = isinstance(error, Exception) and not goes_on
        trackers.end("failed" if failed else "interrupted")
        raise


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """Those values that are numbers."""
    return {key: value for key, value in values.items() if isinstance(value, (int, float))}


def densities(net: Net) -> dict[str, float]:
    """Of every covered weight: the fraction that is not zero, and the fraction that trains."""
    net.train(False)  # masks that are drawn in training are evaluated without draws
    values = net.effective_weights()
    net.train()
    # one transfer from the device for all layers
    nonzero = torch.stack([value.count_nonzero() for value in values.values()]).tolist()
    found: dict[str, float] = {}
    for (name, weight), count in zip(net.weights.items(), nonzero, strict=True):
        found[f"density/{name}"] = count / weight.size
        found[f"trained/{name}"] = weight.dim / weight.size
    return found


def reason(error: Exception, package: str) -> str:
    """Why a tracker stopped, in a line."""
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        return f"it needs a package that is not installed: pip install 'dimred[{package}]'"
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {textwrap.shorten(first.rstrip('.'), MOST_LETTERS)}"
