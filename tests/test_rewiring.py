"""Sparse training: when it rewires, how many weights, and its initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from conftest import compose
from torch import Tensor, nn
from toy import set_up, watch

import dimred.select.rewiring
from dimred.errors import UserError
from dimred.methods.bases import PowerProp
from dimred.methods.dynamic_sparse_training.deep_r import DeepR
from dimred.methods.dynamic_sparse_training.dsr import DSR
from dimred.methods.dynamic_sparse_training.granet import GraNet
from dimred.methods.dynamic_sparse_training.itop import ITOP
from dimred.methods.dynamic_sparse_training.mest import MEST
from dimred.methods.dynamic_sparse_training.rigl import RigL
from dimred.methods.dynamic_sparse_training.set import SET
from dimred.methods.dynamic_sparse_training.snfs import SNFS
from dimred.methods.dynamic_sparse_training.srigl import SRigL
from dimred.methods.dynamic_sparse_training.top_kast import TopKAST
from dimred.methods.pruning_at_init.single_shot import Random
from dimred.methods.random_start import scale_by_fan_in
from dimred.methods.supermasks.edge_popup import IterRand
from dimred.net import Net
from dimred.net.coordinates import Supports
from dimred.runs.build import build
from dimred.scores import Scores, magnitude
from dimred.select.allocations import Uniform
from dimred.select.schedules import decayed, steps_between

TOTAL = 828  # covered weights of the toy


# -- when --------------------
def test_a_period_is_a_number_of_steps_or_a_fraction_of_training() -> None:
    _, train = set_up()  # 40 steps
    assert [train.period(every) for every in (1, 7, 7.0, 400)] == [1, 7, 7, 400]
    # five at the least
    assert [train.period(every) for every in (0.25, 0.2, 0.1, 0.001)] == [10, 8, 5, 5]
    assert [steps_between(0.01, total) for total in (1, 7, 8, 19, 20, 100, 1000)] == [
        1,
        1,
        2,
        4,
        5,
        5,
        10,
    ]
    assert [t for t in range(40) if train.every(0.25)(t)] == [10, 20, 30]
    assert [t for t in range(40) if train.every(15, 0.75)(t)] == [15]


@pytest.mark.parametrize("every", [0, -1, 2.5, -0.1])
def test_a_period_that_is_neither_is_refused(every: float) -> None:
    with pytest.raises(
        UserError, match="a whole number of steps, or a fraction of training below 1"
    ):
        RigL(sparsity=0.5, update_every=every)


@pytest.mark.parametrize(
    "method",
    [
        SET(sparsity=0.8, update_every=40),
        RigL(sparsity=0.8, update_every=30),
        ITOP(sparsity=0.8, update_every=0.99),
        MEST(sparsity=0.8, update_every=28, drop_fractions=(0.4, 0.2), stage_ends=(0.5, 0.7)),
        MEST(
            sparsity=0.8,
            update_every=28,
            drop_fractions=(0.4,),
            stage_ends=(0.7,),
            soft_memory_bound=True,
        ),
        SNFS(sparsity=0.8, update_every=99),
        DSR(sparsity=0.8, update_every=38, double_period_at=()),
        TopKAST(sparsity=0.8, update_every=40),
        SRigL(sparsity=0.8, update_every=40, update_until=1.0),
        RigL(sparsity=0.8, update_every=5, update_until=0.0),
        IterRand(sparsity=0.5, allocation=Uniform(), randomize_every=300),
    ],
    ids=repr,
)
def test_a_method_that_would_never_rewire_is_refused_before_it_trains(method: RigL) -> None:
    net, train = set_up()
    message = r"method.update_every=.* it would never happen. Choose a smaller method.update_every"
    with pytest.raises(UserError, match=message):
        method.run(net, train)
    assert train.steps_done == 0


@pytest.mark.parametrize(
    "name",
    [
        *("dsr", "granet", "itop_rigl", "itop_set", "mest", "mest_soft", "rigl", "set", "snfs"),
        *("srigl", "topkast"),
    ],
)
def test_supports_move_by_default_in_short_trainings(name: str) -> None:
    net, train = set_up(steps=400 if name == "dsr" else 40)
    build(compose(f"method={name}", "sparsity=0.8").method, "method").run(net, train)
    most = max({"granet": 0.5, "mest_soft": 0.3, "topkast": 0.4}.get(name, 0.2), net.dim / TOTAL)
    assert train.exploration.explored() > most + 0.02


# -- how much --------------------
def test_rigl_fraction_falls_as_in_the_paper() -> None:
    assert [decayed(0.4, "constant", x) for x in (0.0, 0.5, 1.0)] == [0.4, 0.4, 0.4]
    assert [decayed(0.4, "linear", x) for x in (0.0, 0.5, 1.0)] == [0.4, 0.2, 0.0]
    assert [decayed(0.4, "inverse_power", x) for x in (0.0, 0.5, 1.0)] == [0.4, 0.05, 0.0]
    assert [decayed(0.4, "cosine", x) for x in (0.0, 0.5, 1.0)] == pytest.approx([0.4, 0.2, 0.0])


TEN: dict[str, Any] = {"sparsity": 0.8, "allocation": Uniform(), "update_every": 10}
FALLING = {"drop_fraction": 0.3, "min_drop_fraction": 0.1}


@pytest.mark.parametrize(
    "method, rounded",
    [
        (ITOP(**TEN, **FALLING, grow="gradient"), math.ceil),
        (ITOP(**TEN, **FALLING), math.ceil),
        (GraNet(**TEN, **FALLING, initial_sparsity=0.8, prune_until=0.5), math.ceil),
        (SNFS(sparsity=0.8, update_every=10, **FALLING), math.ceil),
        (RigL(**TEN, update_until=1.0), math.floor),
    ],
    ids=repr,
)
def test_the_number_of_dropped_weights_is_rounded_as_in_the_official_code(
    method: RigL, rounded: Callable[[float], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, train = set_up()
    seen: list[tuple[dict[str, int], dict[str, int]]] = []
    drop = dimred.select.rewiring.drop

    def spied(net: Net, scores: Scores, counts: dict[str, int]) -> Supports:
        room = {name: w.dim * (w.support is not None) for name, w in net.weights.items()}
        seen.append((room, dict(counts)))
        return drop(net, scores, counts)

    for family in ("rigl", "itop", "snfs", "granet"):
        monkeypatch.setattr(f"dimred.methods.dynamic_sparse_training.{family}.drop", spied)
    method.run(net, train)
    low = 0.0 if isinstance(method, RigL) else 0.1
    for (dim, counts), t in zip(
        [each for each in seen if sum(each[1].values())], (10, 20, 30), strict=True
    ):
        fraction = low + (0.3 - low) / 2 * (1 + math.cos(math.pi * t / 40))
        assert counts == {name: rounded(fraction * n) for name, n in dim.items()}


def test_rigl_sums_gradients_of_the_last_steps() -> None:
    net, train = set_up(steps=7)
    sums: dict[str, Tensor] = {}
    sizes: dict[str, Tensor] = {}
    steps = train.steps

    def watched(**how: Callable[[int], bool]):  # type: ignore[no-untyped-def]
        assert [t for t in range(7) if how["dense_grad"](t)] == [3, 4, 5]
        for t in steps(**how):  # type: ignore[arg-type]
            if t in (3, 4, 5):
                sums.update(
                    {n: sums.get(n, torch.zeros_like(g)) + g for n, g in net.grads().items()}
                )
            sizes.update(magnitude(net))
            yield t
            if t == 5:
                assert not net.method_state

    train.steps = watched  # type: ignore[method-assign, assignment]
    RigL(
        sparsity=0.8,
        allocation=Uniform(),
        update_every=5,
        drop_fraction=0.5,
        update_until=1.0,
        drop_schedule="constant",
        gradient_batches=3,
    ).run(net, train)
    for name, w in net.weights.items():
        d = Uniform()(net, 0.2)[name]
        stay = sizes[name].view(-1).argsort(descending=True)[: d - d // 2]
        others = sums[name].view(-1).abs().index_fill(0, stay, -1.0)
        grown = others.argsort(descending=True)[: d // 2]
        assert w.trained().nonzero().view(-1).tolist() == sorted([*stay.tolist(), *grown.tolist()])
    message = (
        r"method.gradient_batches=6 is not allowed. It must be at most method.update_every, 5 steps"
    )
    with pytest.raises(UserError, match=message):
        RigL(sparsity=0.8, update_every=5, gradient_batches=6).run(*set_up())


# -- the start --------------------
def test_scaled_weights_give_a_neuron_the_variance_of_all_its_inputs() -> None:
    net = Net(nn.Sequential(nn.Linear(4, 3, bias=False), nn.Conv2d(2, 2, 2, bias=False)))
    with torch.no_grad():
        for w in net.weights.values():
            w.psi.fill_(1.0)
    net.keep({"0.weight": torch.tensor([1, 4, 5, 6, 7]), "1.weight": torch.tensor([0, 7])})
    scale_by_fan_in(net)
    # sqrt(4 / 1), 1
    assert net.dense_weights()["0.weight"].tolist() == [[0, 2, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    assert net.weights["1.weight"].psi.tolist() == [2.0, 2.0]  # sqrt(8 / 2)


@pytest.mark.parametrize(
    "make",
    [
        partial(RigL, allocation=Uniform(), update_every=5),
        partial(SET, allocation=Uniform(), update_every=5),
        partial(SRigL, allocation=Uniform(), update_every=5),
        partial(DeepR, allocation=Uniform(), l1=0, noise=0),
        partial(Random, allocation=Uniform()),
    ],
)
def test_a_scaled_start_has_the_same_support_and_larger_weights(make: Callable[..., RigL]) -> None:
    plain, scaled = (first_step(make(sparsity=0.8, scale_fan_in=each)) for each in (False, True))
    for name, theta in plain.items():
        rows = theta.flatten(1)
        inputs = (rows != 0).sum(1, keepdim=True).clamp_min(1)
        expected = rows * (rows.shape[1] / inputs).sqrt()
        assert (
            torch.allclose(scaled[name].flatten(1), expected, atol=1e-6)
            and expected.abs().sum() > rows.abs().sum()
        )


def first_step(method: RigL) -> dict[str, Tensor]:
    """The weights after a step that changes next to nothing."""
    net, train = set_up(lr=1e-9)
    seen: list[dict[str, Tensor]] = []
    watch(
        train,
        lambda t: seen.append({name: theta.clone() for name, theta in net.dense_weights().items()}),
    )
    method.run(net, train)
    return seen[0]


def test_neurons_that_keep_all_their_inputs_are_not_scaled() -> None:
    with pytest.raises(UserError, match=r"method.scale_fan_in=true is not allowed"):
        Random(sparsity=0.8, allocation=Uniform(), base="init", scale_fan_in=True)


def test_a_basis_has_no_fan_in_to_scale_by() -> None:
    net, train = set_up()
    PowerProp().apply(net)
    with pytest.raises(UserError, match=r"Choose method.scale_fan_in=false or basis=none"):
        RigL(sparsity=0.8, allocation=Uniform(), update_every=5, scale_fan_in=True).run(net, train)
