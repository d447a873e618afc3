"""COPS: combined scores against the linear program that they solve."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from at_init import (
    same,
)
from scipy.optimize import linprog
from torch import Tensor

from dimred.errors import UserError
from dimred.methods.pruning_at_init.cops import COPS
from dimred.scores import (
    combined,
)
from dimred.select.topk import topk


def uniform_scores(n: int, number: int, seed: int) -> list[dict[str, Tensor]]:
    draws = torch.Generator().manual_seed(seed)
    return [{"a": torch.rand(n, generator=draws).double()} for _ in range(number)]


def unit(score: dict[str, Tensor]) -> np.ndarray:
    return (score["a"] / score["a"].abs().sum()).numpy()


@pytest.mark.parametrize("seed", range(5))
def test_a_level_of_zero_is_the_first_score_and_of_one_the_second(seed: int) -> None:
    first, second = uniform_scores(40, 2, seed)

    def choose(score: dict[str, Tensor]) -> dict[str, Tensor]:
        return topk(score, 12)  # type: ignore[return-value]

    assert same(choose(combined([first, second], [0.0], choose)), choose(first))  # type: ignore[arg-type]
    assert same(choose(combined([first, second], [1.0], choose)), choose(second))  # type: ignore[arg-type]


@pytest.mark.parametrize("levels", [[0.8], [0.95], [0.8, 0.85], [0.9, 0.5], [0.75, 0.75, 0.75]])
@pytest.mark.parametrize("seed", range(6))
def test_combined_scores_solve_the_linear_program_within_one_swap(
    levels: list[float], seed: int
) -> None:
    n, k = 60, 20
    scores = uniform_scores(n, 1 + len(levels), seed)

    def choose(score: dict[str, Tensor]) -> dict[str, Tensor]:
        return topk(score, k)  # type: ignore[return-value]

    flat = [unit(score) for score in scores]
    wanted = [
        level * np.sort(other)[-k:].sum() for level, other in zip(levels, flat[1:], strict=True)
    ]
    exact = linprog(
        -flat[0],
        A_ub=-np.array(flat[1:]),
        b_ub=-np.array(wanted),
        A_eq=np.ones((1, n)),
        b_eq=[k],
        bounds=(0, 1),
    )
    chosen = choose(combined(scores, levels, choose))["a"].numpy()  # type: ignore[arg-type]
    swap = len(levels) * np.ptp(flat[0])
    assert len(chosen) == k and flat[0][chosen].sum() >= -exact.fun - swap
    for other, least in zip(flat[1:], wanted, strict=True):
        assert other[chosen].sum() >= least - (0 if len(levels) == 1 else np.ptp(other))
    if len(levels) == 1:
        assert flat[0][chosen].sum() <= -exact.fun + 1e-12
        assert (
            exact.x[chosen] > 1e-9
        ).sum() >= k - 1  # one of them at most is not in the exact solution


def test_levels_trade_one_score_for_the_other() -> None:
    first, second = uniform_scores(80, 2, 3)
    values = []
    for level in (0.0, 0.7, 0.8, 0.9, 0.95, 1.0):
        mask = topk(combined([first, second], [level], lambda s: topk(s, 25)), 25)["a"]
        values.append((float(first["a"][mask].sum()), float(second["a"][mask].sum())))
    assert values == sorted(values, key=lambda v: (-v[0], v[1]))


def test_levels_that_cannot_be_met_are_refused() -> None:
    one = {"a": torch.arange(10.0)}
    other = {"a": torch.arange(10.0).flip(0)}
    third = {"a": torch.ones(10)}
    with pytest.raises(
        UserError,
        match=r"no mask meets all levels of the 2 constraints together. Lower method.levels",
    ):
        combined([third, one, other], [0.95, 0.95], lambda s: topk(s, 3))


def test_scores_to_combine_have_levels() -> None:
    for bad, message in (
        ({"subject_to": ("grasp",), "levels": (0.9, 0.9)}, "one number for each"),
        ({"subject_to": (), "levels": ()}, "one number"),
        ({"subject_to": ("grasp",), "levels": (1.5,)}, "each a fraction in"),
    ):
        with pytest.raises(UserError, match=message):
            COPS(**bad)  # type: ignore[arg-type]
