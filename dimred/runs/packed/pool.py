"""Computes the runs of a sweep side by side, each in one of a few long-lived processes.

Hydra's joblib launcher, joblib and concurrent.futures share one pool of equal workers: when one of
them is killed, all runs that are in progress fail, and nobody knows which one was at fault; no
worker can have a GPU or a number of threads of its own before torch is imported; and Ctrl-C reaches
parent and workers alike. So workers are plain processes here, each with a connection of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from typing import Any

from dimred.errors import Interrupted, require
from dimred.runs.packed.places import Place, homes, visible_gpus
from dimred.runs.packed.process import Worker
from dimred.runs.packed.worker import Message, Outcome, Task
from dimred.runs.packed.workers import Workers
from dimred.runs.processes import require_one_process
from dimred.runs.signals import Signals, noting_signals
from dimred.training.sweep_label import named_run

POLL = 0.2  # seconds between two looks for signals, and for workers that died without a word
AGAIN = 1.0  # seconds until a run that another process computes is asked for again

log = logging.getLogger(__name__)


class SweepInterrupted(Interrupted):
    """Signals ended a sweep: its runs were saved, or ended at once."""

    def __init__(self, signals: Signals) -> None:
        super().__init__(signals.came[0])
        self.saved = "checkpoint" if signals.at_once else "step"

    def __str__(self) -> str:
        return (
            f"stopped by signal {self.signal}. Finished runs are kept, and those that were "
            f"training up to their last {self.saved}. Repeat the command to resume"
        )


@dataclass(eq=False)
class Queued:
    """A task of the sweep, its number in the order asked for, and the places that may compute it.

    alone: no other worker is or was in the memory of its place
    not_before: when another process computes this run, the time to look again
    death: how its worker died, perhaps after it had written the result, which is looked for"""

    number: int
    task: Task
    places: list[Place]
    alone: bool = False
    not_before: float = 0.0
    death: str = ""
    said: set[str] = field(default_factory=set)

    def say(self, level: int, message: str) -> None:
        """Log a message about the run, once if it is tried again."""
        if message not in self.said:
            with named_run(self.task.label, self.task.values):
                log.log(level, "%s", message)
        self.said.add(message)


@dataclass
class Pool:
    """Hands out the tasks of one sweep after another.

    waiting: tasks that are to be computed next
    too_large: to be tried again alone, after the others
    signals: that came while the present tasks are computed
    patient: whether a run that another command computes is waited for
    """

    workers: Workers
    waiting: list[Queued] = field(default_factory=list)
    too_large: list[Queued] = field(default_factory=list)
    signals: Signals = field(default_factory=Signals)
    patient: bool = False

    def outcomes(
        self, tasks: Sequence[Task], more: bool = False, patient: bool = False
    ) -> Iterator[tuple[int, Outcome]]:
        """Compute the tasks; the number and the outcome of each as soon as it is known.
        SweepInterrupted after a signal, when all that was training is saved.

        more: these are more tasks of the sweep before, which need no less memory
        patient: wait for runs that other commands compute"""
        left, self.patient = len(tasks), patient
        with noting_signals() as self.signals:
            if tasks:
                self.settle(tasks, more)
            try:
                while left:
                    self.obey()
                    for number, outcome in self.events():
                        left -= 1
                        yield number, outcome
                if self.signals.came:  # at the very end
                    self.obey()
            finally:  # none is busy unless an error has ended the sweep
                self.workers.end(self.workers.busy())

    def obey(self) -> None:
        """At a signal all workers save the step in progress and end; at Ctrl-C after it they end
        at once."""
        if not self.signals.came:
            return self.assign()
        for worker in self.workers.processes:
            worker.interrupt()
            if self.signals.at_once:
                worker.kill()
        if not self.workers.busy():
            stop = SweepInterrupted(self.signals)
            log.info("%s", stop)
            raise stop

    def settle(self, tasks: Sequence[Task], more: bool) -> None:
        """Choose the places and threads for tasks."""
        gpus = visible_gpus()
        allowed = [homes(task.device, len(gpus)) for task in tasks]
        self.workers.settle(allowed, gpus, more)
        self.waiting = [
            Queued(i, task, [self.workers.places[number] for number in allowed[i]])
            for i, task in enumerate(tasks)
        ]
        self.too_large = []

    # -- handing out --------------------
    def assign(self) -> None:
        """Give tasks to idle workers, and start workers where more can be used."""
        idle = not self.workers.busy()
        if self.workers.mps_failure:
            if idle:
                self.workers.without_mps()
            return
        if idle and not self.waiting and self.too_large:
            return self.assign_alone(self.too_large.pop(0))
        for each in self.workers.places.values():
            if each not in self.workers.lost:
                self.fill(each)

    def fill(self, place: Place) -> None:
        now = time.monotonic()
        here = [queued for queued in self.waiting if place in queued.places]
        tasks = [queued for queued in here if queued.not_before <= now]
        busy = [worker for worker in self.workers.here(place) if worker.queued]
        wanted = min(place.workers(), len(tasks) + len(busy))
        for _ in range(wanted - len(self.workers.here(place))):
            self.workers.start(place)
        idle = [worker for worker in self.workers.here(place) if not worker.queued]
        free = idle[: max(0, place.room() - len(busy))]
        for worker, queued in zip(free, tasks, strict=False):
            self.waiting.remove(queued)
            self.give(worker, queued)

    def give(self, worker: Worker, queued: Queued) -> None:
        queued.alone = len(self.workers.here(worker.place)) == 1
        worker.give(queued)

    def assign_alone(self, queued: Queued) -> None:
        """With no other worker in the memory of its place."""
        place = next(
            (each for each in queued.places if each not in self.workers.lost), queued.places[0]
        )
        keep = self.workers.here(place)[:1]
        self.workers.end([each for each in self.workers.processes if each not in keep])
        self.give((keep or [self.workers.start(place)])[0], queued)

    # -- what comes back --------------------
    def events(self) -> Iterator[tuple[int, Outcome]]:
        """Wait for messages; the outcomes among them."""
        ready: list[Any] = wait([worker.connection for worker in self.workers.processes], POLL)
        for worker in [*self.workers.processes]:
            if worker not in self.workers.processes:  # ended because of another's message
                continue
            if worker.connection in ready:
                message = worker.receive()
                yield from self.answered(worker, message) if message else self.died(worker)
            elif worker.has_died():
                yield from self.died(worker)
        for queued in [*self.waiting]:
            if all(place in self.workers.lost for place in queued.places):
                self.waiting.remove(queued)
                not_begun = f"not begun: {self.workers.lost[queued.places[0]]}"
                yield self.failed(queued, queued.death or not_begun)

    def answered(self, worker: Worker, message: Message) -> Iterator[tuple[int, Outcome]]:
        queued = worker.queued
        if "ready" in message:
            worker.ready = True
        elif queued is None:
            pass
        elif "log" in message:
            queued.say(*message["log"])
        elif "interrupted" in message:
            worker.saved = True
        elif "no_gpu" in message:
            worker.queued = None
            self.waiting.insert(0, queued)
            self.workers.lose(worker.place, message["no_gpu"])
        else:
            worker.queued = None
            yield from self.finished(worker, queued, message)

    def finished(
        self, worker: Worker, queued: Queued, message: Message
    ) -> Iterator[tuple[int, Outcome]]:
        place = worker.place
        if message.get("broken"):  # another process may be able to use the GPU
            self.workers.end([worker])
        done = message["outcome"]["status"] == "done"
        if done and message.get("peak") and place.at_once is None:
            place.measure(message["peak"], message["free"])
            log.info("runs at once on GPU %s: %s", place.visible, place.at_once)
            self.workers.end_surplus(place)
        if message.get("busy") and (self.patient or self.workers.busy()):
            queued.not_before = time.monotonic() + AGAIN
            self.waiting.append(queued)
        elif message.get("out_of_memory") and not queued.alone:
            place.one_fewer()
            self.workers.end_surplus(place)
            self.too_large.append(queued)
            queued.say(logging.WARNING, "out of memory beside other runs. It is tried again alone")
        elif done:
            yield queued.number, {"overrides": [*queued.task.overrides], **message["outcome"]}
        else:
            yield self.failed(queued, queued.death or message["outcome"]["reason"])

    def died(self, worker: Worker) -> Iterator[tuple[int, Outcome]]:
        """A worker that ended before its time. Its run fails unless it has a result, or the sweep
        is to stop."""
        queued, worker.queued = worker.queued, None
        # a scheduler sends its signals to workers, too
        interrupted, how = worker.interrupted or self.signals.came, worker.manner_of_death()
        self.workers.end([worker])
        if interrupted:
            return
        if not worker.ready:
            self.waiting += [queued] if queued else []
            if not any(
                each.ready for each in self.workers.here(worker.place)
            ):  # nor would the next be
                self.workers.lose(
                    worker.place, f"a worker process ended before it was ready ({how})"
                )
        elif queued is not None and queued.death:  # even to look was too much
            yield self.failed(queued, queued.death)
        elif queued is not None:
            queued.death = (
                f"its process was ended or crashed ({how}). Repeat the command to resume it from "
                "its last checkpoint; if the machine had too little memory, with fewer runs at "
                "once: hydra.launcher.n_jobs=N"
            )
            queued.task = replace(queued.task, only_finished=True)
            self.waiting.insert(0, queued)

    def failed(self, queued: Queued, reason: str) -> tuple[int, Outcome]:
        queued.say(logging.ERROR, reason)
        outcome = {"status": "failed", "reason": reason}
        return queued.number, {"overrides": [*queued.task.overrides], **outcome}


# -- one pool for all launchers of a command --------------------
_blocks: list[list[Pool]] = []


@contextmanager
def shared_pool() -> Iterator[None]:
    """All calls of `the_pool` in the block return one pool, which ends with the outermost block."""
    _blocks.append([])
    try:
        yield
    finally:
        for pool in _blocks.pop():
            pool.workers.close()


def the_pool(given: int | None) -> Pool:
    """The pool of the blocks of `shared_pool` that this is called in."""
    require_one_process("this command")
    require_number(given)
    outermost = _blocks[0]
    if not outermost:
        outermost.append(Pool(Workers(given)))
    outermost[0].workers.given = given
    return outermost[0]


def require_number(at_once: int | None) -> None:
    whole = at_once is None or (isinstance(at_once, int) and at_once >= 1)
    require(whole, "hydra.launcher.n_jobs", at_once, "a whole number, 1 or more, or null")
