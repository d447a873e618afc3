"""Schedules: functions of the training step alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from dimred.errors import UserError, counted, require

LEAST = 5  # the shortest period, in steps, that a fraction of training gives
Decay = Literal["cosine", "constant", "linear", "inverse_power"]


def require_period(prune_from: float, prune_until: float) -> None:
    """UserError unless pruning begins before it ends."""
    require(
        prune_from < prune_until,
        "method.prune_from, method.prune_until",
        (prune_from, prune_until),
        "prune_from < prune_until",
    )


def steps_between(every: float, total: int) -> int:
    """The period in steps, in a training of `total` steps: `every` itself or, below 1, that
    fraction of the training.

    A fraction of training gives at least LEAST steps, or a quarter of a very short training. Grown
    weights need some steps before they are compared with others, and the steps in which RigL
    updates the mask do not train."""
    least = max(1, min(LEAST, total // 4))
    return max(least, round(every * total)) if every < 1 else int(every)


def due_every(every: float, until: float, total: int, key: str) -> Callable[[int], bool]:
    """Tells whether something periodic is due at a step, in a training of `total` steps: never at
    step 0, and not after the fraction `until`. UserError, naming the key, if it would never be
    due."""
    period, end = steps_between(every, total), until * total
    if period >= end:
        raise UserError(
            f"{key}={every} means every {counted(period, 'step')}, and only {end:g} of the {total} "
            f"steps of training count: it would never happen. Choose a smaller {key}, or more "
            "recipe.epochs"
        )
    return lambda t: 0 < t < end and t % period == 0


def cubic(sparsity: float, progress: float) -> float:
    """The density of gradual pruning, which falls fast at first: 1 - s (1 - (1 - x)^3), progress x
    in [0, 1]. Zhu, Gupta, ICLR workshop 2018 (arXiv:1710.01878), eq. 1."""
    return 1 - sparsity * (1 - (1 - progress) ** 3)


def cosine(first: float, last: float, progress: float) -> float:
    """From first to last along half a cosine; progress in [0, 1]."""
    return last + (first - last) / 2 * (1 + math.cos(math.pi * progress))


def decayed(first: float, decay: Decay, progress: float) -> float:
    """A fraction that falls from `first` to 0 or, with "constant", stays; progress x in [0, 1].

    inverse_power is first (1 - x)^3. Evci et al., ICML 2020 (arXiv:1911.11134), appendix."""
    if decay == "cosine":
        return cosine(first, 0.0, progress)
    power = {"constant": 0, "linear": 1, "inverse_power": 3}[decay]
    return first * (1 - progress) ** power
