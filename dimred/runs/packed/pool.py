"""Computes the runs of a sweep side by side, each in one of a few long-lived processes.

Hydra's joblib launcher, joblib and concurrent.futures share one pool of equal workers: when one of
them is killed, all runs that are in progress fail, and nobody knows which one was at fault; no
worker can have a GPU or a number of threads of its own before torch is imported; and Ctrl-C reaches
parent and workers alike. So workers are plain processes here, each with a connection of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from dimred.errors import Interrupted
from dimred.runs.packed.mps import MPS, exclusive
from dimred.runs.packed.places import CPU, Place, cores, homes, place, visible_gpus
from dimred.runs.packed.process import Worker
from dimred.runs.packed.worker import Message, Outcome, Task
from dimred.runs.signals import Signals, ignoring_signals, noting_signals
from dimred.training.sweep_label import named_run

POLL = 0.2  # seconds between two looks for signals, and for workers that died without a word

log = logging.getLogger(__name__)


class SweepInterrupted(Interrupted):
    """A signal ended a sweep; its runs are saved."""

    def __str__(self) -> str:
        return (
            f"stopped by signal {self.signal}. Finished runs are kept, and those that were "
            "training are saved up to their last step. Repeat the command to resume"
        )


@dataclass(eq=False)
class Queued:
    """A task of the sweep, its number in the order asked for, and the places that may compute it.

    alone: no other worker is or was in the memory of its place"""

    number: int
    task: Task
    places: list[Place]
    alone: bool = False
    said: set[str] = field(default_factory=set)

    def say(self, level: int, message: str) -> None:
        """Log a message about the run, once if it is tried again."""
        if message not in self.said:
            with named_run(self.task.label, self.task.values):
                log.log(level, "%s", message)
        self.said.add(message)


@dataclass
class Pool:
    """Workers for one sweep after another.

    given: runs at once on each GPU, or on the CPU; None: as many as fit
    waiting: tasks that are to be computed next
    blocked: the same run is being computed by another worker
    too_large: to be tried again alone, after the others
    lost: why places cannot be used
    """

    given: int | None
    places: dict[int, Place] = field(default_factory=dict)  # by their numbers
    settled: tuple[list[int], int | None] = ([], None)  # the places and `given` that they are for
    workers: list[Worker] = field(default_factory=list)
    mps: MPS = field(default_factory=MPS)
    mps_failure: str = ""
    threads: int = 1  # of each worker, at most
    waiting: list[Queued] = field(default_factory=list)
    blocked: list[Queued] = field(default_factory=list)
    too_large: list[Queued] = field(default_factory=list)
    lost: dict[Place, str] = field(default_factory=dict)

    def outcomes(self, tasks: Sequence[Task], more: bool = False) -> Iterator[tuple[int, Outcome]]:
        """Compute the tasks; the number and the outcome of each as soon as it is known.
        SweepInterrupted after a signal, when all that was training is saved.

        more: these are more tasks of the sweep before, which need no less memory"""
        left = len(tasks)
        with noting_signals() as signals:
            if tasks:
                self.settle(tasks, more)
            try:
                while left:
                    self.obey(signals)
                    for number, outcome in self.events():
                        left -= 1
                        yield number, outcome
                if signals.came:  # at the very end
                    self.obey(signals)
            finally:
                self.end(self.busy())  # there are none unless an error has ended the sweep

    def obey(self, signals: Signals) -> None:
        """At the first signal all workers save the step in progress and end; at the second they
        end at once."""
        if not signals.came:
            return self.assign()
        for worker in self.workers:
            worker.interrupt() if len(signals.came) == 1 else worker.kill()
        if not self.busy():
            raise SweepInterrupted(signals.came[0])

    # -- places --------------------
    def settle(self, tasks: Sequence[Task], more: bool) -> None:
        """Choose the places and threads for tasks. Workers that fit are kept."""
        gpus = visible_gpus()
        allowed = [homes(task.device, len(gpus)) for task in tasks]
        used = sorted({number for each in allowed for number in each})
        if (used, self.given) != self.settled or self.lost:
            self.close()
            self.settled = used, self.given
            share = max(1, cores() // len(used))
            self.places = {number: place(number, self.given, share, gpus) for number in used}
            self.lost = {}
            self.start_mps()
        elif not more:
            for each in self.places.values():
                each.forget()
        workers = sum(min(each.most, len(tasks)) for each in self.places.values())
        threads = max(1, cores() // min(workers, len(tasks)))
        if threads != self.threads:
            self.end([*self.workers])
        self.threads = threads
        self.waiting = [
            Queued(i, task, [self.places[number] for number in allowed[i]])
            for i, task in enumerate(tasks)
        ]
        self.blocked, self.too_large = [], []

    def start_mps(self) -> None:
        if any(number != CPU and each.most > 1 for number, each in self.places.items()):
            self.mps.start()
            self.respect_exclusive_mode()

    def respect_exclusive_mode(self) -> None:
        """Without MPS, such a GPU takes one process."""
        for each in self.places.values():
            if each.visible is not None and not self.mps.running and exclusive(each.visible):
                each.most = each.first = each.at_once = 1
                log.warning("GPU %s is in exclusive mode: one run at a time", each.visible)

    def lose(self, place: Place, reason: str) -> None:
        """Use a place no more. If its workers are clients of this sweep's MPS, that may be at
        fault, and all goes on without it."""
        if self.mps.environment:
            self.mps_failure = reason
        else:
            self.lost[place] = reason

    # -- handing out --------------------
    def busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.queued]

    def here(self, place: Place) -> list[Worker]:
        return [worker for worker in self.workers if worker.place is place]

    def assign(self) -> None:
        """Give tasks to idle workers, and start workers where more can be used."""
        idle = not self.busy()
        if self.mps_failure:
            if idle:
                self.end([*self.workers])
                self.mps.give_up(self.mps_failure)
                self.respect_exclusive_mode()
                self.mps_failure = ""
            return
        if idle and not self.waiting:
            self.waiting, self.blocked = self.blocked, []
        if idle and not self.waiting and self.too_large:
            return self.assign_alone(self.too_large.pop(0))
        for each in self.places.values():
            if each not in self.lost:
                self.fill(each)

    def fill(self, place: Place) -> None:
        tasks = [queued for queued in self.waiting if place in queued.places]
        busy = [worker for worker in self.here(place) if worker.queued]
        wanted = min(place.workers(), len(tasks) + len(busy))
        for _ in range(wanted - len(self.here(place))):
            self.start(place)
        idle = [worker for worker in self.here(place) if not worker.queued]
        free = idle[: max(0, place.room() - len(busy))]
        for worker, queued in zip(free, tasks, strict=False):
            self.waiting.remove(queued)
            self.give(worker, queued)

    def give(self, worker: Worker, queued: Queued) -> None:
        queued.alone = len(self.here(worker.place)) == 1
        worker.give(queued)

    def assign_alone(self, queued: Queued) -> None:
        """With no other worker in the memory of its place."""
        place = next((each for each in queued.places if each not in self.lost), queued.places[0])
        keep = self.here(place)[:1]
        self.end([worker for worker in self.workers if worker not in keep])
        self.give((keep or [self.start(place)])[0], queued)

    def start(self, place: Place) -> Worker:
        for each in self.here(place):
            if each.queued:
                each.queued.alone = False
        worker = Worker(place, self.threads, self.mps.environment)
        self.workers.append(worker)
        return worker

    def end(self, workers: Sequence[Worker]) -> None:
        """What they are computing is saved."""
        for worker in workers:
            worker.end()
        for worker in workers:
            worker.wait()
            self.workers.remove(worker)

    def end_surplus(self, place: Place) -> None:
        """End idle workers that a place has no room for."""
        idle = [worker for worker in self.here(place) if not worker.queued]
        self.end(idle[: max(0, len(self.here(place)) - place.workers())])

    def close(self) -> None:
        """End all workers, and this sweep's MPS."""
        with ignoring_signals():  # else MPS would go on
            self.end([*self.workers])
            self.mps.stop()

    # -- what comes back --------------------
    def events(self) -> Iterator[tuple[int, Outcome]]:
        """Wait for messages; the outcomes among them."""
        ready: list[Any] = wait([worker.connection for worker in self.workers], POLL)
        for worker in [*self.workers]:
            if worker not in self.workers:  # ended because of another's message
                continue
            if worker.connection in ready:
                message = worker.receive()
                yield from self.answered(worker, message) if message else self.died(worker)
            elif worker.has_died():
                yield from self.died(worker)
        for queued in [*self.waiting]:
            if all(place in self.lost for place in queued.places):
                self.waiting.remove(queued)
                yield self.failed(queued, f"not begun: {self.lost[queued.places[0]]}")

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
            self.lose(worker.place, message["no_gpu"])
        else:
            worker.queued = None
            yield from self.finished(worker, queued, message)

    def finished(
        self, worker: Worker, queued: Queued, message: Message
    ) -> Iterator[tuple[int, Outcome]]:
        place = worker.place
        self.waiting += self.blocked  # this run may have been the one that they wait for
        self.blocked = []
        if message.get("broken"):  # another process may be able to use the GPU
            self.end([worker])
        done = message["outcome"]["status"] == "done"
        if done and message.get("peak") and place.at_once is None:
            place.measure(message["peak"], message["free"])
            log.info("runs at once on GPU %s: %s", place.visible, place.at_once)
            self.end_surplus(place)
        if message.get("busy") and self.busy():
            self.blocked.append(queued)
        elif message.get("out_of_memory") and not queued.alone:
            place.one_fewer()
            self.end_surplus(place)
            self.too_large.append(queued)
            queued.say(logging.WARNING, "out of memory beside other runs. It is tried again alone")
        elif done:
            yield queued.number, {"overrides": [*queued.task.overrides], **message["outcome"]}
        else:
            yield self.failed(queued, message["outcome"]["reason"])

    def died(self, worker: Worker) -> Iterator[tuple[int, Outcome]]:
        """A worker that ended before its time. Its run fails, unless the sweep is to stop."""
        queued, worker.queued = worker.queued, None
        interrupted, how = worker.interrupted, worker.manner_of_death()
        self.end([worker])
        if interrupted:
            return
        if not worker.ready:
            self.waiting += [queued] if queued else []
            if not any(each.ready for each in self.here(worker.place)):  # nor would the next be
                self.lose(worker.place, f"a worker process ended before it was ready ({how})")
        elif queued is not None:
            yield self.failed(
                queued,
                f"its process was ended or crashed ({how}). Repeat the command to resume it from "
                "its last checkpoint; if the machine had too little memory, with fewer runs at "
                "once: hydra.launcher.n_jobs=N",
            )

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
            pool.close()


def the_pool(given: int | None) -> Pool:
    """The pool of the blocks of `shared_pool` that this is called in."""
    outermost = _blocks[0]
    if not outermost:
        outermost.append(Pool(given))
    outermost[0].given = given
    return outermost[0]
