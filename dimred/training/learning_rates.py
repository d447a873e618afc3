"""Schedules of the learning rate: pure functions of the step, each as a fraction of recipe.lr.

They have the values of torch.optim.lr_scheduler, counted from the end of the warm-up on:
    linear, polynomial   PolynomialLR with power 1 and recipe.power
    cosine               CosineAnnealingLR
    step                 MultiStepLR
    one_cycle            OneCycleLR, which has a warm-up of its own, with its default factors and
                         the momentum left alone
    cyclic               CyclicLR, triangular, with the momentum left alone
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dimred.training.recipe import Recipe

#: of one_cycle, as fractions of recipe.lr: where it begins, and where it ends
FIRST = 1 / 25
LAST = FIRST / 10_000


def fraction(recipe: Recipe, step: int, total: int) -> float:
    """The learning rate of a step in a training of `total` steps, as a fraction of recipe.lr."""
    if recipe.schedule == "one_cycle":
        return one_cycle(step, total, recipe.warmup)
    warmup = round(recipe.warmup * total)
    if step < warmup:
        # step + 1, so that the first step has a learning rate above 0
        return (step + 1) / warmup
    if recipe.schedule == "step":
        passed = [m for m in recipe.milestones if step >= round(m * total)]
        return recipe.gamma ** len(passed)
    done, steps = step - warmup, total - warmup
    if recipe.schedule == "cosine":
        return between(1.0, 0.0, done / steps)
    if recipe.schedule == "linear":
        return (steps - done) / steps
    if recipe.schedule == "polynomial":
        return ((steps - done) / steps) ** recipe.power
    if recipe.schedule == "cyclic":
        return triangle(done * recipe.cycles / steps, recipe.lowest)
    return 1.0


def one_cycle(step: int, total: int, rise: float) -> float:
    """Up along half a cosine in the fraction `rise` of training, and down along another."""
    peak = rise * total - 1
    if step < peak:
        return between(FIRST, 1.0, step / peak)
    return between(1.0, LAST, (step - peak) / (total - 1 - peak))


def triangle(cycles: float, lowest: float) -> float:
    """From the lowest value up to 1 and back in every cycle."""
    height = 1 - abs(2 * (cycles % 1) - 1)
    return lowest + (1 - lowest) * height


def between(first: float, last: float, done: float) -> float:
    """From `first` to `last` along half a cosine."""
    return last + (first - last) / 2 * (1 + math.cos(math.pi * done))
