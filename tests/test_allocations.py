"""Allocations of a budget to layers, against the formulas of their papers."""

from __future__ import annotations

import copy
import itertools

import pytest
from at_init import (
    Residual,
    lenet5,
    lenet300,
    mlp,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dimred.net import Net
from dimred.select.allocations import ER, ERK, IGQ, Balanced, SmartRatio, Uniform, UniformPlus

LEAST = 0.0015


FIXTURES = [  # densities worked out independently from the formulas of the papers
    (IGQ(), lenet300, 0.90, [0.0644, 0.3507, 0.9419]),
    (IGQ(), lenet300, 0.95, [0.0288, 0.1887, 0.8746]),
    (IGQ(), lenet300, 0.98, [0.0101, 0.0744, 0.7068]),
    (IGQ(), lenet5, 0.90, [0.9819, 0.5198, 0.0634, 0.8440]),
    (IGQ(), lenet5, 0.98, [0.8684, 0.1166, 0.0082, 0.3976]),
    (Balanced(), lenet300, 0.90, [0.0545, 0.4270, 1.0]),
    (Balanced(), lenet5, 0.90, [1.0, 0.7510, 0.0469, 1.0]),
    (ERK(power=1.0), lenet5, 0.90, [1.0, 0.0871, 0.0884, 1.0]),
    (ER(), lenet300, 0.90, [0.0796, 0.2302, 1.0]),  # without kernels ER is ERK
    (UniformPlus(last_density=0.2), lenet300, 0.90, [0.1 - 100 / 265200] * 2 + [0.2]),
    (UniformPlus(last_density=0.2), lenet5, 0.90, [1.0, *[(43050 - 1500) / 425000] * 2, 0.2]),
    (UniformPlus(last_density=0.2), lenet5, 0.50, [1.0, *[(215250 - 500) / 430000] * 3]),
    (
        SmartRatio(power=0.0, last_density=0.3),
        lenet300,
        0.90,
        [*(26320 / (12 * 235200 + 6 * 30000) * n for n in (12, 6)), 0.3],
    ),
]


@pytest.mark.parametrize(("allocation", "model", "sparsity", "densities"), FIXTURES)
def test_densities_are_those_of_the_formula(
    allocation: object, model: object, sparsity: float, densities: list[float]
) -> None:
    net = Net(model())  # type: ignore[operator]
    counts = allocation(net, 1 - sparsity)  # type: ignore[operator]
    for w, count, density in zip(net.weights.values(), counts.values(), densities, strict=True):
        assert abs(count / w.size - density) < LEAST


ALLOCATIONS = [
    Uniform(),
    UniformPlus(last_density=0.2),
    ER(),
    ERK(power=1.0),
    IGQ(),
    Balanced(),
    SmartRatio(power=0.0, last_density=0.3),
    SmartRatio(power=2.0, last_density=0.3),
]


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
    st.sampled_from(ALLOCATIONS),
    st.sampled_from([lenet5, Residual]),
)
def test_allocations_meet_the_budget_and_grow_with_it(
    one: float, other: float, allocation: object, model: object
) -> None:
    net = Net(model())  # type: ignore[operator]
    few, many = (allocation(net, density) for density in sorted((one, other)))  # type: ignore[operator]
    for density, counts in zip(sorted((one, other)), (few, many), strict=True):
        assert sum(counts.values()) == round(density * net.total)
        assert all(0 <= counts[name] <= w.size for name, w in net.weights.items())
    assert all(few[name] <= many[name] for name in net.weights)


TINY = [nn.Conv2d(1, 2, 2), nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(5, 3), nn.Linear(3, 2)]


COVERS = [
    ".",
    *(
        f"^[{''.join(layers)}].weight$"
        for n in (1, 2, 3, 4)
        for layers in itertools.combinations("0134", n)
    ),
]


@pytest.mark.parametrize(
    "allocation",
    [*ALLOCATIONS, UniformPlus(last_density=1.0), SmartRatio(power=1.0, last_density=1.0)],
    ids=repr,
)
def test_masks_of_a_schedule_are_nested_in_tiny_nets(allocation: Uniform) -> None:
    """For every budget, whatever is covered: exact, never negative, and no layer less than with one
    weight fewer."""
    for include in COVERS:
        net = Net(nn.Sequential(*copy.deepcopy(TINY)), include=[include])
        before = dict.fromkeys(net.weights, 0)
        for budget in range(net.total + 1):
            counts = allocation(net, budget / net.total)
            assert sum(counts.values()) == budget
            assert all(before[name] <= counts[name] <= w.size for name, w in net.weights.items()), (
                include,
                budget,
            )
            before = counts


@pytest.mark.parametrize("density, counts", [(0.05, [92, 183]), (0.5, [500, 2250])])
def test_uniform_plus_with_two_layers_shares_the_budget_between_them(
    density: float, counts: list[int]
) -> None:
    """They are to keep 500 and 1000 weights: 275 are shared 1 to 2, and from 1500 on both have what
    they are to."""
    net = Net(lenet5(), include=["^0.weight", "^7.weight"])
    assert list(UniformPlus(last_density=0.2)(net, density).values()) == counts


def test_smart_ratio_keeps_its_fraction_of_every_linear_layer() -> None:
    """Of 688 weights 138 are left: 0.3 of 32 and of 8, and 126 for the convolutions, as 72 * 20 to
    576 * 12."""
    net = Net(
        nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 4), nn.Linear(4, 2)
        )
    )
    assert list(SmartRatio(power=0.0, last_density=0.3)(net, 0.2).values()) == [22, 104, 10, 2]


def test_smart_ratio_falls_with_depth_and_faster_for_vgg() -> None:
    net = Net(mlp(50, 50, 50, 50, 10))
    for power, ratios in ((0.0, (20, 12, 6)), (2.0, (20, 12 / 4, 6 / 9))):
        counts = list(SmartRatio(power=power, last_density=0.3)(net, 0.05).values())
        assert counts[3] == 150
        for count, ratio in zip(counts, ratios, strict=False):
            assert abs(count / counts[0] - ratio / 20) < 0.01


def test_a_last_layer_larger_than_the_budget_gets_half_of_it() -> None:
    counts = SmartRatio(power=0.0, last_density=0.3)(Net(lenet300()), 0.001)
    assert sum(counts.values()) == 266 and counts["4.weight"] == 133
