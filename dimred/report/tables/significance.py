"""Tests of a difference between two methods over the same seeds, and the seeds that it needs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

LEVEL = 0.05  # of two-sided tests
POWER = 0.8  # the probability of finding a difference that is there
MOST_SEEDS = 10_000


def paired_t_test(differences: Sequence[float]) -> float | None:
    """The two-sided p value of Student's t test of the mean difference. None for fewer than two
    differences, or where all are equal."""
    n = len(differences)
    if n < 2 or not (std := statistics.stdev(differences)):
        return None
    from scipy.special import stdtr  # slow to import

    t = statistics.fmean(differences) / (std / math.sqrt(n))
    return float(2 * stdtr(n - 1, -abs(t)))


def sign_test(differences: Sequence[float]) -> float | None:
    """The exact two-sided p value of the sign test, without differences of 0. None if all are."""
    positive = sum(difference > 0 for difference in differences)
    negative = sum(difference < 0 for difference in differences)
    n, fewer = positive + negative, min(positive, negative)
    if not n:
        return None
    tail = sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
    return min(1.0, 2 * tail)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P values adjusted for so many tests (Holm 1979); None is no test."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[i] = largest
    return adjusted


def power_of(effect: float, n: int) -> float:
    """The probability that a two-sided paired t test of n differences finds this effect: the mean
    difference in units of the standard deviation of the differences."""
    from scipy.special import nctdtr, stdtrit

    critical, centre = float(stdtrit(n - 1, 1 - LEVEL / 2)), abs(effect) * math.sqrt(n)
    return float(1 - nctdtr(n - 1, centre, critical) + nctdtr(n - 1, centre, -critical))


def seeds_needed(difference: float, std: float) -> int | None:
    """The fewest seeds with which a paired t test finds this difference with a power of 80 %. None
    if there is no difference or no spread, or if it needs more than 10,000."""
    if not difference or not std or power_of(difference / std, MOST_SEEDS) < POWER:
        return None
    few, enough = 1, 2
    while power_of(difference / std, enough) < POWER:
        few, enough = enough, min(2 * enough, MOST_SEEDS)
    while enough - few > 1:  # power grows with the number
        middle = (few + enough) // 2
        if power_of(difference / std, middle) < POWER:
            few = middle
        else:
            enough = middle
    return enough
