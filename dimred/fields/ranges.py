"""Ranges of numbers, as annotations: `rounds: Annotated[int, at_least(1)]`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """The numbers that a field allows. Messages and help print `words`."""

    words: str
    allows: Callable[[float], bool]


def at_least(least: float) -> Range:
    return Range(f"{least} or more", lambda value: value >= least)


def above(limit: float) -> Range:
    return Range(f"a number above {limit}", lambda value: value > limit)


def within(interval: str, what: str = "a number") -> Range:
    """An interval in mathematical notation: within("[0, 1)") includes 0 and excludes 1."""
    low, high = map(float, interval[1:-1].split(","))

    def allows(value: float) -> bool:
        above_low = low <= value if interval[0] == "[" else low < value
        below_high = value <= high if interval[-1] == "]" else value < high
        return above_low and below_high

    return Range(f"{what} in {interval}", allows)


def _is_period(value: float) -> bool:
    return 0 < value < 1 or (value >= 1 and value == int(value))


Count = Annotated[int, at_least(1)]
Step = Annotated[int, at_least(0)]
Positive = Annotated[float, above(0)]
NotNegative = Annotated[float, at_least(0)]

Fraction = Annotated[float, within("[0, 1]", "a fraction")]
PositiveFraction = Annotated[float, within("(0, 1]", "a fraction")]
OpenFraction = Annotated[float, within("(0, 1)", "a fraction")]
UnitInterval = Annotated[float, within("[0, 1)")]
#: the fraction of the covered weights that is not trained
Sparsity = Annotated[float, within("[0, 1)")]
#: how often something happens; `train.every` and `train.period` count its steps
Period = Annotated[
    int | float, Range("a whole number of steps, or a fraction of training below 1", _is_period)
]
