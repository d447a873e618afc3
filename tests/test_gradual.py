"""Gradual pruning: schedules, feedback, phases."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from conftest import compose
from torch import Tensor
from toy import set_up, watch

from dimred.errors import UserError
from dimred.methods import gradual_pruning as gradual
from dimred.methods.gradual_pruning import ACDC, DPF, GMP, WeightMom
from dimred.methods.reference_networks import Dense, MagnitudeAfter
from dimred.net import Net
from dimred.net.transforms import Masked, StraightThroughMask, straight_through
from dimred.runs.build import build
from dimred.select.allocations import Global, Uniform
from dimred.select.schedules import cubic
from dimred.select.topk import topk
from dimred.training.loop import Train

TOTAL = 828  # covered weights of the toy


def thetas(net: Net) -> dict[str, Tensor]:
    return {name: theta.clone() for name, theta in net.dense_weights().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


METHODS = [
    DPF(sparsity=0.8, allocation=Global(), prune_from=0.1, prune_until=0.7, update_every=5),
    WeightMom(
        sparsity=0.8,
        allocation=Global(),
        prune_from=0.1,
        prune_until=0.7,
        update_every=5,
        momentum=0.9,
    ),
    ACDC(sparsity=0.8, allocation=Uniform(), compress_at=(0.1, 0.5), decompress_at=(0.3,)),
    MagnitudeAfter(sparsity=0.8, allocation=Global(), rounds=3, finetune_fraction=0.5),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_exactly_the_sparsity_is_left_in_a_plain_network(method: GMP, optimizer: str) -> None:
    net, train = set_up(optimizer=optimizer, lr=0.01)
    method.run(net, train)
    assert net.dim == round(0.2 * TOTAL) == 166 and not net.transforms
    assert sum(int(theta.count_nonzero()) for theta in net.dense_weights().values()) == 166
    assert all(w.base == "zero" for w in net.weights.values())
    assert len({id(p) for group in train.optimizer.param_groups for p in group["params"]}) == len(
        net.parameters()
    )


@pytest.mark.parametrize(
    "method",
    [
        DPF(sparsity=0.0, allocation=Global(), prune_from=0.1, prune_until=0.7, update_every=5),
        WeightMom(
            sparsity=0.0,
            allocation=Global(),
            prune_from=0.1,
            prune_until=0.7,
            update_every=5,
            momentum=0.9,
        ),
        MagnitudeAfter(sparsity=0.0, allocation=Global(), rounds=3, finetune_fraction=0.5),
        GMP(sparsity=0.0, allocation=Global(), prune_from=0.1, prune_until=0.7, update_every=5),
    ],
    ids=lambda m: type(m).__name__,
)
def test_no_sparsity_is_dense_training(method: GMP) -> None:
    net, train = set_up()
    method.run(net, train)
    dense, train = set_up()
    Dense().run(dense, train)
    assert same(net.dense_weights(), dense.dense_weights()) and net.dim == TOTAL


def test_gmp_prunes_every_layer_alike_by_default() -> None:
    net, train = set_up()
    build(compose("method=gmp", "sparsity=0.75").method, "method").run(net, train)
    assert [w.dim / w.size for w in net.weights.values()] == [0.25, 0.25, 0.25]


def test_the_cubic_schedule_begins_dense_and_ends_at_the_sparsity() -> None:
    assert cubic(0.9, 0.0) == 1 and cubic(0.9, 1.0) == 1 - 0.9
    assert cubic(0.8, 0.5) == pytest.approx(1 - 0.8 * 7 / 8)


def test_gmp_prunes_at_its_first_and_last_step_even_if_they_are_not_multiples() -> None:
    method = GMP(
        sparsity=0.9, allocation=Global(), prune_from=0.25, prune_until=0.75, update_every=8
    )
    due = [t for t in range(40) if method.density(t, 40) is not None]
    assert (
        due == [10, 18, 26, 30]
        and method.density(10, 40) == 1
        and method.density(30, 40) == 1 - 0.9
    )


# -- feedback --------------------
def test_straight_through_has_one_value_and_the_other_gradient() -> None:
    hard, soft = torch.tensor([1.0, 0.0]), torch.tensor([1e8, -1e-8], requires_grad=True)
    out = straight_through(hard, soft)
    out.backward(torch.tensor([3.0, 5.0]))
    assert torch.equal(out, hard) and torch.equal(soft.grad, torch.tensor([3.0, 5.0]))  # type: ignore[arg-type]


def test_feedback_masks_the_value_and_not_the_gradient() -> None:
    theta = torch.tensor([[1.0, -2.0], [3.0, -4.0]], requires_grad=True)
    for kind, grad in (
        (StraightThroughMask, [[5.0, 6.0], [7.0, 8.0]]),
        (Masked, [[0.0, 6.0], [7.0, 0.0]]),
    ):
        each = kind(theta)
        each.keep(torch.tensor([1, 2]))
        out = each(theta)
        assert torch.equal(out, torch.tensor([[0.0, -2.0], [3.0, 0.0]]))
        (got,) = torch.autograd.grad(out, theta, torch.tensor([[5.0, 6.0], [7.0, 8.0]]))
        assert torch.equal(got, torch.tensor(grad))


def test_dpf_weights_that_are_pruned_keep_moving_and_may_return() -> None:
    net, train = set_up()
    history: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    watch(
        train,
        lambda t: history.append(
            (thetas(net), {n: m.kept.clone() for n, m in net.transforms.items()})
        ),
    )  # type: ignore
    DPF(sparsity=0.8, allocation=Global(), prune_from=0.0, prune_until=0.5, update_every=4).run(
        net, train
    )
    (before, kept), (after, _) = history[30], history[31]
    assert all((before[n] != after[n])[~kept[n]].any() for n in kept)
    returned = sum(
        int((late & ~early).sum())
        for (_, a), (_, b) in itertools.pairwise(history)
        for early, late in zip(a.values(), b.values(), strict=True)
    )
    assert returned > 0
    for t in range(20, 40):
        assert sum(int(m.sum()) for m in history[t][1].values()) == 166


def test_dpf_without_feedback_is_gmp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruned once: then nothing can return, and survivors must not notice the others."""
    monkeypatch.setattr("dimred.net.transforms.straight_through", lambda hard, soft: hard)
    net, train = set_up()
    DPF(sparsity=0.8, allocation=Global(), prune_from=0.5, prune_until=0.52, update_every=100).run(
        net, train
    )
    gmp, train = set_up()
    GMP(sparsity=0.8, allocation=Global(), prune_from=0.5, prune_until=0.52, update_every=100).run(
        gmp, train
    )
    assert same(net.dense_weights(), gmp.dense_weights()) and net.dim == gmp.dim == 166


def test_dpf_goes_on_choosing_after_the_density_is_reached() -> None:
    method = DPF(sparsity=0.8, allocation=Global(), prune_from=0.1, prune_until=0.5, update_every=8)
    due = {t: density for t in range(40) if (density := method.density(t, 40)) is not None}
    assert (
        list(due) == [4, 12, 20, 28, 36]
        and due[20] == due[28] == due[36] == 1 - 0.8
        and due[4] == 1
    )


# -- averages --------------------
def test_weightmom_without_momentum_is_gmp() -> None:
    net, train = set_up()
    WeightMom(
        sparsity=0.8,
        allocation=Global(),
        prune_from=0.1,
        prune_until=0.7,
        update_every=5,
        momentum=0.0,
    ).run(net, train)
    gmp, train = set_up()
    GMP(sparsity=0.8, allocation=Global(), prune_from=0.1, prune_until=0.7, update_every=5).run(
        gmp, train
    )
    assert same(net.dense_weights(), gmp.dense_weights())


def test_weightmom_prunes_by_a_moving_average_of_sizes() -> None:
    """Of two weights, one was large for long and is small now."""
    net, train = set_up()
    averages: list[Tensor] = []
    watch(train, lambda t: averages.append(net.dense_weights()["4.weight"].abs()))
    expected = net.dense_weights()["4.weight"].abs()
    method = WeightMom(
        sparsity=0.8,
        allocation=Global(),
        prune_from=0.1,
        prune_until=0.7,
        update_every=5,
        momentum=0.75,
    )

    def see(scores: dict[str, Tensor], budget: object) -> object:
        nonlocal expected
        for size in averages:  # .75 * v + .25 * |theta|, step by step
            expected = 0.75 * expected + 0.25 * size
        averages.clear()
        trained = net.weights["4.weight"].trained().view(expected.shape)
        assert torch.allclose(scores["4.weight"][trained], expected[trained], atol=1e-6)
        return topk(scores, budget)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradual, "topk", see)
        method.run(net, train)
    assert net.dim == 166


# -- phases --------------------
def test_acdc_densities_are_those_of_its_phases() -> None:
    net, train = set_up()
    dims: list[int] = []
    watch(train, lambda t: dims.append(net.dim))
    ACDC(
        sparsity=0.8, allocation=Global(), compress_at=(0.1, 0.5, 0.8), decompress_at=(0.3, 0.6)
    ).run(net, train)
    assert dims == [TOTAL] * 4 + [166] * 8 + [TOTAL] * 8 + [166] * 4 + [TOTAL] * 8 + [166] * 8


def test_acdc_restarts_pruned_weights_from_zero() -> None:
    net, train = set_up()
    keep: Callable[..., None] = net.keep
    decompressed: list[bool] = []

    def kept(supports: dict[str, Tensor | None]) -> None:
        trained = {name: w.trained() for name, w in net.weights.items()}
        keep(supports)
        if all(s is None for s in supports.values()):
            decompressed.append(
                all(torch.equal(w.psi != 0, trained[n]) for n, w in net.weights.items())
            )

    net.keep = kept  # type: ignore[method-assign, assignment]
    ACDC(
        sparsity=0.8, allocation=Global(), compress_at=(0.1, 0.5, 0.8), decompress_at=(0.3, 0.6)
    ).run(net, train)
    assert decompressed == [True, True]


def test_acdc_momentum_begins_anew_at_decompression() -> None:
    """The first step after it is that of an optimiser that has never stepped: -lr (g + decay
    theta)."""
    net, train = set_up(weight_decay=0.0)
    before: dict[str, Tensor] = {}
    steps: list[float] = []
    grads: dict[str, Tensor] = {}

    def before_update(t: int) -> None:
        if t == 12:
            before.update(thetas(net))
            grads.update({n: w.psi.grad.view(w.param.shape) for n, w in net.weights.items()})  # type: ignore

    def after_update(t: int) -> None:
        if t == 12:
            steps.extend(
                float((theta - before[n] + 0.1 * grads[n]).abs().max())
                for n, theta in net.dense_weights().items()
            )

    watch(train, before_update, "before_update")
    watch(train, after_update)
    ACDC(sparsity=0.8, allocation=Global(), compress_at=(0.1, 0.5), decompress_at=(0.3,)).run(
        net, train
    )
    assert len(steps) == 3 and max(steps) < 1e-6


@pytest.mark.parametrize(
    "compress, decompress",
    [((), ()), ((0.1,), (0.5,)), ((0.1, 0.2), (0.5,)), ((0.5,), (0.1,)), ((0.1, 1.0), (0.5,))],
)
def test_acdc_phases_must_alternate_and_end_sparse(compress: tuple, decompress: tuple) -> None:
    with pytest.raises(UserError, match=r"method.compress_at.*=\(.*\) is not allowed"):
        ACDC(sparsity=0.8, allocation=Global(), compress_at=compress, decompress_at=decompress)


# -- after training --------------------
def prunings(method: MagnitudeAfter, train: Train, net: Net) -> list[tuple[int, int]]:
    dims: list[int] = []
    watch(train, lambda t: dims.append(net.dim))
    method.run(net, train)
    return [(t, dim) for t, dim in enumerate(dims) if t == 0 or dim != dims[t - 1]]


def test_pruning_in_rounds_shares_the_last_part_of_training_and_takes_equal_fractions() -> None:
    net, train = set_up()
    expected = [(20 + 5 * k, round(0.2 ** ((k + 1) / 4) * TOTAL)) for k in range(4)]
    assert prunings(
        MagnitudeAfter(sparsity=0.8, allocation=Global(), rounds=4, finetune_fraction=0.5),
        train,
        net,
    ) == [(0, TOTAL), *expected]


def test_one_round_without_fine_tuning_is_the_trained_network_pruned() -> None:
    net, train = set_up()
    MagnitudeAfter(sparsity=0.8, allocation=Global(), rounds=1, finetune_fraction=0.0).run(
        net, train
    )
    dense, train = set_up()
    Dense().run(dense, train)
    for name, w in net.weights.items():
        assert torch.equal(w.psi, dense.dense_weights()[name].view(-1)[w.support])
    largest = torch.cat([t.view(-1) for t in dense.dense_weights().values()]).abs().topk(166).values
    assert (
        min(float(w.psi.detach().abs().min()) for w in net.weights.values() if w.dim)
        == largest.min()
    )


def test_fine_tuning_all_the_time_is_magnitude_pruning_at_the_start() -> None:
    net, train = set_up()
    assert prunings(
        MagnitudeAfter(sparsity=0.8, allocation=Global(), rounds=1, finetune_fraction=1.0),
        train,
        net,
    ) == [(0, 166)]
