"""The worker processes of a command, and the places that they are on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from dimred.runs.packed.mps import MPS, exclusive
from dimred.runs.packed.places import CPU, Place, cores, place
from dimred.runs.packed.process import Worker
from dimred.runs.signals import ignoring_signals

log = logging.getLogger(__name__)


@dataclass
class Workers:
    """They live until the places or threads that are wanted are others.

    given: runs at once on each GPU, or on the CPU; None: as many as fit
    places: by the numbers of their GPUs
    lost: why places cannot be used
    threads: of each worker, at most
    """

    given: int | None
    places: dict[int, Place] = field(default_factory=dict)
    lost: dict[Place, str] = field(default_factory=dict)
    threads: int = 1
    processes: list[Worker] = field(default_factory=list)
    mps: MPS = field(default_factory=MPS)
    mps_failure: str = ""
    _settled: tuple[list[int], int | None] = ([], None)

    # -- places --------------------
    def settle(self, allowed: Sequence[Sequence[int]], gpus: list[str], more: bool) -> None:
        """Choose the places and threads for runs, each with the numbers of the places that may
        compute it. more: they need as much memory as those before."""
        used = sorted({number for each in allowed for number in each})
        if (used, self.given) != self._settled or self.lost:
            self.close()
            self._settled = used, self.given
            share = max(1, cores() // len(used))
            self.places = {number: place(number, self.given, share, gpus) for number in used}
            self.lost = {}
            self.start_mps()
        elif not more:
            for each in self.places.values():
                each.forget()
        at_once = min(len(allowed), sum(each.most for each in self.places.values()))
        threads = max(1, cores() // at_once)
        if threads != self.threads:
            self.end([*self.processes])
        self.threads = threads

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
        fault, and `without_mps` comes next."""
        if self.mps.environment:
            self.mps_failure = reason
        else:
            self.lost[place] = reason

    def without_mps(self) -> None:
        """Go on without this sweep's MPS."""
        self.end([*self.processes])
        self.mps.give_up(self.mps_failure)
        self.respect_exclusive_mode()
        self.mps_failure = ""

    # -- processes --------------------
    def busy(self) -> list[Worker]:
        return [worker for worker in self.processes if worker.queued]

    def here(self, place: Place) -> list[Worker]:
        return [worker for worker in self.processes if worker.place is place]

    def start(self, place: Place) -> Worker:
        for each in self.here(place):
            if each.queued:
                each.queued.alone = False
        worker = Worker(place, self.threads, self.mps.environment)
        self.processes.append(worker)
        return worker

    def end(self, workers: Sequence[Worker]) -> None:
        """What they are computing is saved."""
        for worker in workers:
            worker.end()
        for worker in workers:
            worker.wait()
            self.processes.remove(worker)

    def end_surplus(self, place: Place) -> None:
        """End idle workers that a place has no room for."""
        idle = [worker for worker in self.here(place) if not worker.queued]
        self.end(idle[: max(0, len(self.here(place)) - place.workers())])

    def close(self) -> None:
        """End all workers, and this sweep's MPS."""
        with ignoring_signals():  # else MPS would go on
            self.end([*self.processes])
            self.mps.stop()
