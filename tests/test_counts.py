"""The counts of a result: weights trained to the end, at any time, and other parameters."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from toy import model, set_up, watch

from dimred.methods.bases import Interspace
from dimred.methods.dynamic_sparse_training.rigl import RigL
from dimred.methods.freezing.by_score import DropBack
from dimred.methods.freezing.layers import LastLayer
from dimred.methods.freezing.progressive import AutoFreeze, FreezeOut
from dimred.methods.gradual_pruning import GMP
from dimred.methods.learned_sparsity.movement import Movement
from dimred.methods.learned_sparsity.thresholds import STR
from dimred.methods.reference_networks import Dense
from dimred.methods.subspaces.intrinsic_dimension import IntrinsicDimension
from dimred.methods.subspaces.learned import Subspace
from dimred.methods.supermasks.edge_popup import EdgePopup
from dimred.methods.supermasks.rare_gems import RareGems
from dimred.net import Net
from dimred.runs.counts import counts, kind_of
from dimred.runs.printing import summary
from dimred.select.allocations import Global, Uniform
from dimred.training.exploration import Exploration
from dimred.training.loop import Train

TOTAL, LEFT = 828, 166  # weights of 36, 768 and 24; a fifth of them


def counted(method: Any, basis: Any = None, **net_options: Any) -> dict[str, Any]:
    _, train = set_up(lr=0.02)
    net = Net(model(), seed=3, **net_options)
    if basis:
        basis.apply(net)
    train = Train(net, train.data, train.recipe, seed=3)
    method.run(net, train)
    return counts(net, train.exploration)


@pytest.mark.parametrize(
    "method, ever, last, dim, others",
    [
        (Dense(), TOTAL, TOTAL, TOTAL, {}),
        (LastLayer(), 24, 24, 24, {}),
        (
            GMP(sparsity=0.8, allocation=Global(), prune_from=0.1, prune_until=0.5, update_every=2),
            TOTAL,
            LEFT,
            LEFT,
            {},
        ),
        (FreezeOut(t_0=0.5, cubic=True, scale_lr=True), TOTAL, 24, TOTAL, {}),
        (
            EdgePopup(sparsity=0.8, allocation=Uniform(), weights="init", scale_fan=False),
            0,
            0,
            TOTAL,
            {"scores": TOTAL},
        ),
        (
            RareGems(
                sparsity=0.8,
                allocation=Global(),
                weights="init",
                rounds=3,
                penalty=1e-3,
                finetune_lr_scale=1.0,
            ),
            LEFT,
            LEFT,
            LEFT,
            {"scores": TOTAL},
        ),
        (
            Movement(
                sparsity=0.8,
                allocation=Global(),
                prune_from=0.1,
                prune_until=0.5,
                update_every=2,
                score_lr_scale=1.0,
            ),
            TOTAL,
            LEFT,
            LEFT,
            {"scores": TOTAL},
        ),
        (
            STR(
                sparsity=0.8, allocation=Global(), soft_until=0.5, initial_s=-3.0, weight_decay=0.02
            ),
            TOTAL,
            LEFT,
            LEFT,
            {"thresholds": 3},
        ),
        (
            IntrinsicDimension(
                dim=5, projection="sparse", lr_scale=1.0, train_biases_and_norms=False
            ),
            0,
            0,
            5,
            {"subspace coordinates": 5},
        ),
        (
            Subspace(kind="simplex", points=2, beta=0.0, layerwise=False),
            0,
            0,
            2 * TOTAL,
            {"weights of corners": 2 * TOTAL},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_method_trains_is_counted_by_kind(
    method: Any, ever: int, last: int, dim: int, others: dict[str, int]
) -> None:
    found = counted(method)
    assert (found["trained_ever"], found["trained_to_the_end"], found["dim"]) == (ever, last, dim)
    assert found["other_numbers"] == others
    assert found["total"] == TOTAL and found["explored"] == ever / TOTAL


def test_what_was_frozen_after_training_has_trained_values_and_what_returned_has_not() -> None:
    frozen = counted(AutoFreeze(intervals=5, percentile=100.0))
    assert frozen["trained_to_the_end"] < frozen["trained_ever"] == frozen["dim"] == TOTAL
    returned = counted(
        DropBack(sparsity=0.8, allocation=Global(), update_every=1, update_until=1.0)
    )
    assert returned["trained_to_the_end"] == returned["dim"] == LEFT < returned["trained_ever"]
    assert returned["density"] == 1.0
    assert {name: layer["trained"] for name, layer in frozen["layers"].items()} == {
        "0.weight": 36,
        "4.weight": 768,
        "6.weight": 24,
    }


def test_new_weights_add_to_the_weights_that_were_ever_trained() -> None:
    net, train = set_up()
    seen = {name: torch.zeros(w.size, dtype=torch.bool) for name, w in net.weights.items()}

    def see(t: int) -> None:
        for name, w in net.weights.items():
            seen[name] |= w.trained()

    watch(train, see, "before_update")
    RigL(
        sparsity=0.8, allocation=Uniform(), update_every=5, drop_fraction=0.3, update_until=0.75
    ).run(net, train)
    found = counts(net, train.exploration)
    assert found["trained_ever"] == sum(int(marks.sum()) for marks in seen.values()) > LEFT
    assert found["dim"] == found["trained_to_the_end"] == LEFT


def test_the_numbers_of_a_filter_basis_count_with_its_coefficients() -> None:
    found = counted(
        GMP(sparsity=0.8, allocation=Global(), prune_from=0.1, prune_until=0.5, update_every=2),
        Interspace(share="layer", init="standard", trainable=True),
    )
    assert found["dim"] == LEFT + 81 and found["other_numbers"] == {"numbers of filter bases": 81}
    assert found["uncovered"] == {"biases": 4 + 12 + 2, "norms": 8}
    assert found["trained_parameters"] == LEFT + 81 + 26


def test_uncovered_weights_are_named() -> None:
    found = counted(Dense(), exclude=["^4"])
    assert found["uncovered"] == {"biases": 18, "norms": 8, "weights": 768} and found[
        "uncovered_layers"
    ] == ["4"]
    assert found["total"] == 60 and found["trained_parameters"] == 60 + 794
    assert counted(LastLayer(), exclude=["^4"])["uncovered"] == {"biases": 2}
    attention = nn.MultiheadAttention(4, 2)
    assert {name: kind_of(attention, name) for name, _ in attention.named_parameters()} == {
        "in_proj_weight": "weights",
        "in_proj_bias": "biases",
        "out_proj.weight": "weights",
        "out_proj.bias": "biases",
    }


def test_counts_outlive_a_checkpoint() -> None:
    net, train = set_up()
    EdgePopup(sparsity=0.8, allocation=Uniform(), weights="init", scale_fan=False).run(net, train)
    saved = {name: value.clone() for name, value in train.exploration.state().items()}
    again = Exploration(copy.deepcopy(net))
    again.load(saved)
    assert counts(again.net, again) == counts(net, train.exploration)


def test_a_net_that_was_never_trained_has_no_trained_weights() -> None:
    net = Net(model())
    found = counts(net, Exploration(net))
    assert found["trained_ever"] == found["trained_to_the_end"] == found["dim"] == 0


def line(**found: Any) -> str:
    """The second line of a summary."""
    result: dict[str, Any] = {
        "method": "m",
        "data": "d",
        "model": "n",
        "test_accuracy": 0.5,
        "val_accuracy": None,
        "steps": 20,
        "seconds": 0.1,
        "folder": "f",
        "total": 50200,
        "density": 0.1,
        "trained_ever": 5020,
        "trained_to_the_end": 5020,
        "other_numbers": {},
        "uncovered": {"biases": 410},
        "uncovered_layers": [],
        **found,
    }
    _, *facts, _ = summary(result).splitlines()
    return "; ".join(fact.strip() for fact in facts)


def test_the_summary_says_what_was_trained() -> None:
    assert line() == (
        "5020 of 50200 weights trained, 10.00 % nonzero; trained, but not covered: "
        "410 biases; 20 steps in 0.1 s"
    )
    assert line(trained_ever=50200, density=1.0).startswith(
        "50200 of 50200 weights trained (5020 to the end), 100.00 % nonzero; trained"
    )
    assert line(
        trained_ever=0, trained_to_the_end=0, other_numbers={"scores": 50200}, uncovered={}
    ) == ("0 of 50200 weights trained, 10.00 % nonzero; 50200 scores trained; 20 steps in 0.1 s")
    uncovered = {"weights": 900, "norms": 8}
    two = line(uncovered=uncovered, uncovered_layers=["a", "b"])
    assert "not covered: 900 weights (a, b), 8 norms; 20" in two
    five = line(uncovered=uncovered, uncovered_layers=[*"abcde"])
    assert "900 weights (a, b, c and 2 more layers)" in five


def test_the_summary_of_an_older_result_says_what_it_knows() -> None:
    result = {
        "method": "m",
        "data": "d",
        "model": "n",
        "test_accuracy": 0.5,
        "val_accuracy": None,
        "density": 0.1,
        "dim": 5020,
        "total": 50200,
        "steps": 20,
        "seconds": 0.1,
        "folder": "f",
    }
    assert summary(result).splitlines()[1:3] == [
        "  5020 of 50200 weights trained, 10.00 % nonzero",
        "  20 steps in 0.1 s",
    ]
