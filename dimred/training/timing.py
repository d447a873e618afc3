"""How long training steps and inference take on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median


class StepTimes:
    """Seconds of training steps, with what the method does at their pauses.

    Steps are timed together, from one reading of losses to the next, because a GPU is waited for
    only then. Evaluations and checkpoints do not count.
    """

    def __init__(self) -> None:
        self._means = list[float]()
        self._began: float | None = None
        self._steps = 0

    def begin(self) -> None:
        """Before a step."""
        if self._began is None:
            self._began, self._steps = time.perf_counter(), 0

    def count(self) -> None:
        """After a step."""
        self._steps += 1

    def end(self) -> None:
        """When all steps so far are computed."""
        if self._began is not None and self._steps:
            self._means.append((time.perf_counter() - self._began) / self._steps)
        self._began = None

    def median(self) -> float | None:
        """Of the mean times; None before the first."""
        return median(self._means) if self._means else None


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median_seconds(work: Callable[[], object]) -> float:
    """Of as many calls as fit into a fifth of a second, 3 to 100, after one that is not timed."""
    first = seconds_of(work)
    return median(seconds_of(work) for _ in range(max(3, min(100, int(0.2 / first)))))


def shortest_times(work: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """The shortest time of each, timed in turn: other work on the machine only adds time."""
    rounds = [[seconds_of(each) for each in work] for _ in range(repeats)]
    return [min(times) for times in zip(*rounds, strict=True)]
