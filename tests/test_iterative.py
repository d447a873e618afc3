"""Pruning in rounds, against closed forms and finite differences: iterative SNIP, FORCE, SynFlow,
NTK-SAP."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from at_init import (
    make,
    mlp,
    rounds_of,
    supports_same,
)
from torch import nn
from toy import set_up

from dimred.methods.pruning_at_init.iterative import FORCE, NTKSAP, IterSNIP, SynFlow
from dimred.methods.pruning_at_init.phew import PHEW
from dimred.methods.pruning_at_init.single_shot import (
    SNIP,
)
from dimred.net import Net
from dimred.scores import (
    generator,
    masked,
    ntk_sap,
    permuted,
    random_scores,
    synflow,
)
from dimred.select.allocations import Global
from dimred.select.topk import rounded_down, topk


@pytest.mark.parametrize("kind", [IterSNIP, FORCE])
def test_one_round_is_snip(kind: type) -> None:
    assert supports_same(kind(sparsity=0.8, rounds=1, examples=32), make(SNIP))


def test_only_force_brings_weights_back() -> None:
    for kind, nested in ((IterSNIP, True), (FORCE, False)):
        net, train = set_up()
        masks = rounds_of(kind(rounds=8, examples=16), net, train)
        counts = [sum(int(m.sum()) for m in mask.values()) for mask in masks]
        assert counts == [round(0.1 ** (t / 8) * net.total) for t in range(1, 9)]
        inside = all(
            (earlier[name] | ~later[name]).all()
            for earlier, later in itertools.pairwise(masks)
            for name in later
        )
        assert inside == nested


@pytest.mark.parametrize("kind", [IterSNIP, FORCE, SynFlow, NTKSAP])
def test_rounds_keep_a_rounded_number_of_weights_or_one_that_is_rounded_down(kind: type) -> None:
    net, train = set_up()
    assert net.total == 828  # 828 * 0.1^(1/3) = 384.3, 828 * 0.1^(2/3) = 178.4, 82.8
    for rounding, expected in (("nearest", [384, 178, 83]), ("floor", [384, 178, 82])):
        method = make(kind, 0.9, rounds=3, schedule="exponential", rounding=rounding)
        masks = rounds_of(method, net, train)
        assert [sum(int(m.sum()) for m in mask.values()) for mask in masks] == expected


def test_a_whole_number_of_weights_with_float_error_is_not_rounded_down() -> None:
    assert (1 - 0.9) * 830 < 83 and rounded_down((1 - 0.9) * 830) == 83 and rounded_down(83.9) == 83


def test_force_scores_pruned_weights_as_if_they_returned() -> None:
    net, train = set_up()
    supports = {name: torch.arange(w.size // 2) for name, w in net.weights.items()}
    scores = make(FORCE).scorer(net, train)(supports, 0)  # type: ignore[attr-defined]
    inside, outside = masked(scores, supports), masked(scores, supports, -1.0)
    assert any(
        (outside[name] < 0).any() and (scores[name] - inside[name]).abs().sum() > 0
        for name in scores
    )


def test_synflow_has_the_closed_form() -> None:
    net = Net(mlp(4, 5, 3, 2))
    one, two, three = (theta.double().abs() for theta in net.dense_weights().values())
    scores = synflow(net, (4,), net.supports)
    before, after = one.sum(1), three.sum(0)
    assert torch.allclose(scores["2.weight"], after[:, None] * two * before[None, :], rtol=1e-12)
    # the flow is the same, the factor is squared
    squares = synflow(net, (4,), net.supports, power=2)
    assert torch.allclose(
        squares["2.weight"], after[:, None] * two.square() * before[None, :], rtol=1e-12
    )


@pytest.mark.parametrize(
    "model",
    [
        mlp(16, 30, 15, 5),
        nn.Sequential(
            nn.Conv2d(1, 3, 3, bias=False),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12, 2, False),
        ),
    ],
)
def test_synflow_of_every_layer_sums_to_the_flow(model: nn.Module) -> None:
    net = Net(model)
    shape = (1, 4, 4) if isinstance(model[0], nn.Conv2d) else (16,)  # type: ignore[index]
    for supports in (
        net.supports,
        topk(random_scores(net), {name: w.size // 2 for name, w in net.weights.items()}),
    ):
        sums = [float(score.sum()) for score in synflow(net, shape, supports).values()]
        ones = {
            name: m.double()
            for name, m in masked(
                {n: torch.ones_like(t) for n, t in net.dense_weights().items()}, supports
            ).items()
        }
        flow = copy.deepcopy(model).double().eval()  # R = 1^T f(1) with |theta| in the support
        with torch.no_grad():
            for name, p in flow.named_parameters():
                p.copy_(p.abs() * ones[name]) if name in ones else p.abs_()
            for module in flow.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.bias.zero_()
            total = float(flow(torch.ones(1, *shape, dtype=torch.float64)).sum())
        assert total > 0 and all(math.isclose(s, total, rel_tol=1e-5) for s in sums)


def test_synflow_does_not_overflow_in_deep_nets() -> None:
    net = Net(mlp(*[256] * 60))
    with torch.no_grad():
        for w in net.weights.values():
            w.psi.mul_(3)
    assert all(score.isfinite().all() for score in synflow(net, (256,), net.supports).values())


def test_synflow_leaves_a_path_at_any_sparsity() -> None:
    """With as many weights as layers one of each is left: the largest compression there is."""
    for left in (3, 4, 20):
        net, train = set_up()
        for (
            name,
            p,
        ) in (
            net.uncovered.items()
        ):  # flow is conserved from layer to layer where no bias adds to it
            p.data.fill_(float(name == "1.weight"))
        SynFlow(
            sparsity=1 - left / net.total,
            allocation=Global(),
            base="zero",
            ablation="none",
            rounds=100,
            schedule="exponential",
            power=1,
        ).prune(net, train)
        assert net.dim == left and all(w.dim for w in net.weights.values())
        assert sum(float(s.sum()) for s in synflow(net, (1, 4, 4), net.supports).values()) > 0


def test_ntk_sap_is_quadratic_in_epsilon_and_needs_no_labels() -> None:
    net = Net(mlp(4, 6, 3).double())
    random = [generator(net, "same") for _ in range(2)]
    supports = {"0.weight": torch.arange(10), "2.weight": None}
    large, small = (
        ntk_sap(net, (4,), supports, 8, 3, eps, draws)
        for eps, draws in zip((2e-4, 1e-4), random, strict=True)
    )
    for name in large:
        assert torch.allclose(large[name], 4 * small[name], rtol=2e-2, atol=1e-12)
    assert large["0.weight"].view(-1)[:10].any()


def test_ntk_sap_by_finite_differences_in_the_mask() -> None:
    net, eps = Net(mlp(3, 4, 2).double()), 1e-6
    scores = ntk_sap(net, (3,), net.supports, 5, 1, 0.1, generator(net, "x"))
    draws = generator(net, "x")
    images = torch.randn(5, 3, generator=draws).double()
    thetas = permuted(net.dense_weights(), draws)
    shifted = {
        name: theta + 0.1 * torch.randn(theta.shape, generator=draws).double()
        for name, theta in thetas.items()
    }

    def far(name: str, i: int, change: float) -> float:
        outs = []
        for each in (thetas, shifted):
            gated = {**each, name: each[name].clone()}
            gated[name].view(-1)[i] *= 1 + change
            with net.weights_in_place(gated) as model:
                outs.append(model(images))
        return float((outs[0] - outs[1]).square().sum())

    for name, score in scores.items():
        for i in range(score.numel()):
            slope = (far(name, i, eps) - far(name, i, -eps)) / (2 * eps)
            assert math.isclose(score.view(-1)[i], abs(slope), rel_tol=1e-5, abs_tol=1e-8)


def test_ntk_sap_and_synflow_choose_the_same_whatever_the_labels() -> None:
    for kind in (NTKSAP, SynFlow, PHEW):
        net, train = set_up()
        train.sample = None  # type: ignore[method-assign, assignment] (calling it would fail)
        make(kind).prune(net, train)
        assert net.dim == 166
