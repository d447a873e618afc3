"""How an interrupted run is resumed: finished training phases, checkpoints, snapshots.

A running method cannot be saved, but it can be run again. Its calls of train, train.steps,
train.snapshot and train.once are its training phases, numbered in the order in which they begin. A
checkpoint is written within a phase that takes steps, and holds the number of this phase. When the
method is run again, phases with lower numbers are over and return at once; a snapshot returns the
content of its file. The phase with the stored number loads the checkpoint and continues at its
step, and later phases run as usual. So a method must keep everything that it needs later in the net
or in a snapshot, never in a local variable."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Protocol

import torch

from dimred.files import Json
from dimred.net import Net, State
from dimred.net.seeded import generators, set_generators
from dimred.net.state import below
from dimred.storage.folder import RunFolder
from dimred.storage.tensors import read_tensors
from dimred.training.ranks import Ranks
from dimred.training.start_of_run import require_same_start, start_of_run

log = logging.getLogger(__name__)


class Stateful(Protocol):
    """An object with a state that checkpoints store as JSON."""

    def state(self) -> Json: ...
    def load(self, state: Json, /) -> None: ...


class Followed(Protocol):
    """An object with a state of tensors."""

    def state(self) -> State: ...
    def load(self, state: State, /) -> None: ...


class Replay:
    """The training phases of one run, and its position in them.

    folder: where checkpoints and snapshots are written; None to write none.
    ranks: the processes that compute this run, all from one checkpoint.
    tensors, numbers: objects that a checkpoint stores besides the net, by name: those whose states
    are tensors, which are loaded after the net, and those whose states are JSON.
    steps_done: the number of steps over all phases. last_stop: the step at which the last phase
    ended.
    """

    def __init__(
        self,
        net: Net,
        tensors: Mapping[str, Followed],
        numbers: Mapping[str, Stateful],
        folder: RunFolder | None,
        checkpoint_seconds: float,
        ranks: Ranks,
    ) -> None:
        self.net, self.tensors, self.numbers = net, tensors, numbers
        self.folder, self.checkpoint_seconds = folder, checkpoint_seconds
        self.steps_done, self.last_stop = 0, 0
        self._phases = 0  # the number of phases that have begun
        self._earlier_seconds = 0.0  # before the interruption
        self._began = self._saved = time.monotonic()
        self._device = next(net.model.parameters()).device
        #: the checkpoint, until the interrupted phase has loaded it
        self._checkpoint: tuple[State, Json] | None = None
        if folder:
            self._open(folder, ranks.share.size)
        step = self._checkpoint[1]["steps_done"] if self._checkpoint else -1
        ranks.require_same({"checkpoint": step}, "another")

    def _open(self, folder: RunFolder, processes: int) -> None:
        self._start = start_of_run(self.net.state_dict(), self._device, processes)
        if folder.checkpoint.exists():
            self._checkpoint = read_tensors(folder.checkpoint)
            require_same_start(self._checkpoint[1]["start_of_run"], self._start, folder.checkpoint)
        folder.resume(self._checkpoint[1] if self._checkpoint else {})

    # -- phases --------------------
    def begin_phase(self) -> int:
        """Begin a training phase and return its number."""
        self._phases += 1
        return self._phases - 1

    def is_over(self, phase: int) -> bool:
        """Whether a phase had ended before the interruption, so that it must not run again."""
        return self._checkpoint is not None and phase < self._checkpoint[1]["phase"]

    def snapshot(self) -> State:
        """The state of the net; if this phase is over, the state stored in its file."""
        phase = self.begin_phase()
        path = self.folder.snapshot(phase) if self.folder else None
        # the net is not what it was at this phase, since no checkpoint has been loaded yet
        if path and self.is_over(phase):
            stored, _ = read_tensors(path)
            return {name: value.to(self._device) for name, value in stored.items()}
        state = self.net.state()
        if self.folder and path:
            self.folder.write_tensors(path, state)
        return state

    # -- checkpoints --------------------
    def due(self) -> bool:
        """Whether a checkpoint is due."""
        waited = time.monotonic() - self._saved
        return self.folder is not None and waited >= self.checkpoint_seconds

    def save(self, phase: int, step: int) -> None:
        """Write a checkpoint of the state before a step, within a phase."""
        if self.folder is None:
            return
        self.folder.write_tensors(self.folder.checkpoint, self._tensors(), self._about(phase, step))
        self._saved = time.monotonic()

    def _tensors(self) -> State:
        states = {"net": self.net.state()}
        states |= {part: each.state() for part, each in self.tensors.items()}
        tensors: State = {}
        for part, state in states.items():
            tensors |= {f"{part}/{name}": value for name, value in state.items()}
        tensors["random/cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self._device)
        return tensors

    def _about(self, phase: int, step: int) -> Json:
        assert self.folder
        return {
            "phase": phase,
            "step": step,
            "steps_done": self.steps_done,
            "last_stop": self.last_stop,
            "seconds": self.elapsed(),
            "start_of_run": self._start,
            "random": generators(),
            **{name: part.state() for name, part in self.numbers.items()},
            **self.folder.state(),
        }

    def restore(self, start: int) -> int:
        """The step at which the present phase begins: if the run was interrupted in this phase, the
        step of the checkpoint, which is loaded; otherwise `start`."""
        if self._checkpoint is None:
            return start
        tensors, about = self._checkpoint
        self._checkpoint = None
        self.net.load(below(tensors, "net/"))
        for name, each in self.tensors.items():
            each.load(below(tensors, f"{name}/"))
        for name, part in self.numbers.items():
            if name in about:  # a checkpoint may be older than what is stored today
                part.load(about[name])
        self.steps_done, self.last_stop = about["steps_done"], about["last_stop"]
        self._earlier_seconds, self._began = about["seconds"], time.monotonic()
        torch.set_rng_state(tensors["random/cpu"])
        set_generators(about["random"])
        if self._device.type == "cuda" and "random/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random/cuda"], self._device)
        log.info("resumed at step %d (training phase %d)", about["step"], about["phase"])
        return about["step"]

    def start_clock(self) -> None:
        """Measure the time of the run from now on."""
        self._began = time.monotonic()

    def elapsed(self) -> float:
        """Seconds of work on this run, including those before an interruption."""
        return self._earlier_seconds + time.monotonic() - self._began
