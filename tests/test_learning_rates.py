"""Learning rates have the values of PyTorch's schedulers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler
from toy import RECIPE

from dimred.errors import UserError
from dimred.training.recipe import Recipe

LR, STEPS = 0.8, 40


def recipe(**changes: Any) -> Recipe:
    return dataclasses.replace(RECIPE, lr=LR, **changes)


def of_torch(kind: Any, **arguments: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR, momentum=0.9)
    schedule = kind(optimizer, **arguments)
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("ours", "kind", "theirs"),
    [
        ({"schedule": "constant"}, lr_scheduler.ConstantLR, {"factor": 1.0}),
        ({"schedule": "cosine"}, lr_scheduler.CosineAnnealingLR, {"T_max": STEPS}),
        ({"schedule": "linear"}, lr_scheduler.PolynomialLR, {"total_iters": STEPS}),
        (
            {"schedule": "step", "milestones": (0.25, 0.6), "gamma": 0.3},
            lr_scheduler.MultiStepLR,
            {"milestones": [10, 24], "gamma": 0.3},
        ),
        (
            {"schedule": "polynomial", "power": 2.5},
            lr_scheduler.PolynomialLR,
            {"total_iters": STEPS, "power": 2.5},
        ),
        (
            {"schedule": "one_cycle", "warmup": 0.3},
            lr_scheduler.OneCycleLR,
            {"max_lr": LR, "total_steps": STEPS, "cycle_momentum": False},
        ),
        (
            {"schedule": "cyclic", "cycles": 4, "lowest": 0.25},
            lr_scheduler.CyclicLR,
            {"base_lr": LR / 4, "max_lr": LR, "step_size_up": 5, "cycle_momentum": False},
        ),
    ],
)
def test_learning_rates_are_those_of_pytorch(ours: Any, kind: Any, theirs: Any) -> None:
    found = [recipe(**ours).lr_at(t, STEPS) for t in range(STEPS)]
    assert found == pytest.approx(of_torch(kind, **theirs), rel=1e-6, abs=1e-9)


def test_schedules_begin_after_the_warmup() -> None:
    for schedule in ("polynomial", "cyclic", "cosine", "linear"):
        warm = recipe(schedule=schedule, warmup=0.2, power=2.0, cycles=2)
        plain = recipe(schedule=schedule, power=2.0, cycles=2)
        found = [warm.lr_at(t, 50) for t in range(50)]
        assert found[:10] == pytest.approx([LR * (t + 1) / 10 for t in range(10)])
        assert found[10:] == pytest.approx([plain.lr_at(t, 40) for t in range(40)])


@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_one_cycle_fits_into_the_shortest_training(total: int) -> None:
    rates = [recipe(schedule="one_cycle", warmup=0.3).lr_at(t, total) for t in range(total)]
    assert all(0 < rate <= LR for rate in rates)


def test_one_cycle_needs_a_part_that_rises() -> None:
    with pytest.raises(UserError, match=r"recipe.warmup=0.0 is not allowed.*such as 0.3"):
        recipe(schedule="one_cycle")
