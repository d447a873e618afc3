"""Candidates take turns, so that other load on the machine affects all of them alike.

In every round they come in another order: each finds the caches as the one before leaves them, and
a fixed order would favour some.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

from dimred.training.timing import seconds_of

Step = Callable[[], object]
Times = dict[str, list[float]]
ORDER = random.Random(0)


def in_turns(steps: Mapping[str, Step], rounds: int, count: int = 1, warm_up: int = 2) -> Times:
    """Seconds of each step in each round, the mean of `count` of them. The first `warm_up` rounds
    do not count."""
    found: Times = {who: [] for who in steps}
    for i in range(warm_up + rounds):
        for who in ORDER.sample([*steps], len(steps)):
            taken = seconds_of(partial(repeat, steps[who], count))
            if i >= warm_up:
                found[who].append(taken / count)
    return found


def repeat(step: Step, count: int) -> None:
    for _ in range(count):
        step()


def ratio(one: list[float], other: list[float]) -> float:
    """The median over the rounds of one / other."""
    return median(a / b for a, b in zip(one, other, strict=True))
