"""Thresholds, gates, penalties and powers: transforms against closed forms, exact counts."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from toy import RECIPE, Blobs, model, set_up, trained, watch

from dimred.errors import UserError
from dimred.methods.bases import Power, PowerProp
from dimred.methods.gradual_pruning import GMP
from dimred.methods.learned_sparsity.movement import Movement, SigmoidGate, SoftMovement
from dimred.methods.learned_sparsity.penalties import HALO, AdaptiveLasso
from dimred.methods.learned_sparsity.thresholds import DST, STR, RowThresholds, SoftThreshold, step
from dimred.methods.own_density import report_own_density
from dimred.methods.pruning_at_init.single_shot import SNIP, FreezeNet
from dimred.methods.reference_networks import Dense
from dimred.net import Net
from dimred.net.coordinates import Supports
from dimred.net.transforms import ScoredMask
from dimred.scores import gradients
from dimred.select.allocations import Global, Uniform
from dimred.select.topk import topk
from dimred.training.loop import Train

TOTAL = 828  # covered weights of the toy
METHODS = [
    STR(sparsity=0.8, initial_s=-3.0, weight_decay=0.02),
    DST(sparsity=0.8, alpha=0.1),
    Movement(sparsity=0.8, update_every=4),
    SoftMovement(sparsity=0.8, penalty=0.02, score_lr_scale=100),
    HALO(sparsity=0.8, allocation=Uniform(), xi=2e-3, penalty=2e-3, tolerance=1e-3),
    STR(sparsity=0.8, soft_until=1.0, initial_s=-3.0, weight_decay=0.04),
    HALO(sparsity=0.8, soft_until=1.0, xi=4e-3, penalty=4e-3, tolerance=1e-3),
]


@pytest.mark.parametrize(
    "method", METHODS, ids=lambda m: f"{type(m).__name__}-{getattr(m, 'until', '')}"
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_exactly_the_sparsity_is_left_in_a_plain_network(method: STR, optimizer: str) -> None:
    net, train = set_up(optimizer=optimizer, lr=0.01)
    method.run(net, train)
    assert net.dim == round(0.2 * TOTAL) == 166 and not net.transforms
    assert sum(int(theta.count_nonzero()) for theta in net.dense_weights().values()) <= 166
    assert all(w.base == "zero" for w in net.weights.values())
    assert len({id(p) for group in train.optimizer.param_groups for p in group["params"]}) == len(
        net.parameters()
    )


@pytest.mark.parametrize(
    "method",
    [
        STR(sparsity=0.5, soft_until=1.0, initial_s=-2.0, weight_decay=0.04),
        DST(sparsity=0.5, soft_until=1.0, alpha=2.0),
    ],
    ids=lambda m: type(m).__name__,
)
def test_the_choice_is_the_methods_own_where_the_sparsity_is(method: STR) -> None:
    """Ask for what it has come to by itself: then settling changes no weight."""
    net, train = set_up(lr=0.02)
    keep, own = net.keep, dict[str, Tensor]()

    def watched(supports: Supports, merge: bool) -> None:
        own.update({name: value.clone() for name, value in net.effective_weights().items()})
        keep(supports, merge=merge)

    net.keep = watched  # type: ignore[method-assign,assignment]
    method.run(net, train)
    count = sum(int(v.count_nonzero()) for v in own.values())
    assert 0 < count < TOTAL and net.reported["own_density"] == count / TOTAL
    net = trained(dataclasses.replace(method, sparsity=1 - count / TOTAL), lr=0.02)
    assert net.dim == count and all(
        torch.equal(theta, own[name]) for name, theta in net.dense_weights().items()
    )


@pytest.mark.parametrize(
    "own, left, warns",
    [
        (0.2, 0.0, False),
        (0.1, 0.0, False),
        (0.27, 0.0875, False),
        (0.3, 0.125, True),
        (1.0, 1.0, True),
    ],
)
def test_more_than_a_tenth_left_to_the_final_cut_is_said(
    own: float, left: float, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    net = Net(nn.Linear(100, 1, bias=False))
    with caplog.at_level(logging.WARNING, "dimred"):
        report_own_density(net, round(own * 100), 0.2, "Choose a larger method.alpha")
    assert net.reported == pytest.approx({"own_density": own, "left_to_cut": left})
    assert len(caplog.messages) == warns
    for message in caplog.messages:
        assert f"reached density {own:.3g} instead of 0.2" in message
        assert f"remove the last {100 * left:.0f} % of the weights to be pruned. " in message
        assert "Choose a larger method.alpha" in message


@pytest.mark.parametrize("steps", [20, 40])
def test_strengths_are_those_of_the_whole_soft_phase(steps: int) -> None:
    """So a longer training is not a sparser one: 0.1 over half of the steps."""
    net, train = set_up(steps=steps)
    alphas: list[float] = []
    # type: ignore[misc]
    watch(train, lambda t: alphas.extend(m.alpha for m in net.transforms.values()))
    DST(sparsity=0.8, alpha=0.1).run(net, train)
    assert len(alphas) == 3 * steps // 2 and set(alphas) == {0.1 / (steps / 2)}


def test_halo_counts_weights_below_its_tolerance_as_pruned() -> None:
    net = Net(nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        net.weights["weight"].psi.copy_(torch.tensor([0.1, -0.003, 0.002, -0.5]))
    assert HALO(sparsity=0.5, xi=1.0, penalty=1.0, tolerance=0.0025).used(net) == 3


# -- thresholds --------------------
def test_str_shrinks_by_the_sigmoid_and_its_threshold_has_the_gradient_of_active_signs() -> None:
    theta = torch.tensor([[0.9, -0.8], [0.1, -0.2]], requires_grad=True)
    g = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    each = SoftThreshold(theta, -1.0)
    t = 1 / (1 + math.e)
    out = each(theta)
    assert torch.allclose(out, torch.tensor([[0.9 - t, t - 0.8], [0.0, 0.0]]))
    out.backward(g)
    assert torch.equal(theta.grad, torch.tensor([[1.0, 2.0], [0.0, 0.0]]))  # type: ignore[arg-type]
    # ds = -sigmoid' * sum over what is active of g sign(theta)
    assert each.s.grad.item() == pytest.approx(-t * (1 - t) * (1.0 - 2.0))  # type: ignore[union-attr]


def test_str_thresholds_decay_by_a_strength_of_their_own() -> None:
    """The weight decay of s is how the paper controls sparsity: without gradient, s_t = s_0 (1 - lr
    decay)^t."""
    net, train = set_up(momentum=0.0, weight_decay=0.3, steps=1)
    maps: list[nn.Module] = []
    watch(train, lambda t: maps.extend(net.transforms.values()))
    STR(sparsity=0.5, soft_until=1.0, initial_s=-3200.0, weight_decay=0.1).run(net, train)
    assert len(maps) == 3 and all(
        m.s.item() == pytest.approx(-3200 * (1 - 0.1 * 0.1)) for m in maps
    )  # type: ignore


def test_dst_step_has_the_derivative_of_the_paper() -> None:
    x = torch.tensor(
        [-1.5, -1.0, -0.5, -0.4, -0.1, 0.0, 0.1, 0.4, 0.5, 1.0, 1.5], requires_grad=True
    )
    out = step(x)
    assert torch.equal(out, torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1.0]))
    out.sum().backward()
    assert torch.allclose(x.grad, torch.tensor([0, 0.4, 0.4, 0.4, 1.6, 2, 1.6, 0.4, 0.4, 0.4, 0]))  # type: ignore


def test_dst_thresholds_of_rows_have_gradients_of_weights_and_penalty() -> None:
    theta = torch.tensor([[0.5, -0.3], [0.05, -2.0]], requires_grad=True)
    each = RowThresholds(theta, alpha=0.1)
    with torch.no_grad():
        each.tau.copy_(torch.tensor([[0.4], [0.1]]))
    out = each(theta)
    assert torch.equal(out, torch.tensor([[0.5, 0.0], [0.0, -2.0]]))
    (out.sum() + each.penalty(theta)).backward()
    # x = |theta| - tau = .1, -.1 / -.05, 1.9; slopes 1.6, 1.6 / 1.8, 0
    assert torch.allclose(theta.grad, torch.tensor([[1 + 0.5 * 1.6, 0.3 * 1.6], [0.05 * 1.8, 1.0]]))  # type: ignore
    expected = [-(0.5 * 1.6 - 0.3 * 1.6) - 0.1 * math.exp(-0.4), -0.05 * 1.8 - 0.1 * math.exp(-0.1)]
    assert torch.allclose(each.tau.grad.view(-1), torch.tensor(expected))  # type: ignore[union-attr]
    assert RowThresholds(torch.zeros(4, 3, 5, 5), 0.1).tau.shape == (4, 1, 1, 1)


def test_dst_reopens_a_layer_that_has_closed() -> None:
    theta = torch.ones(4, 50)
    for value, after in ((2.0, 0.0), (0.5, 0.5)):
        each = RowThresholds(theta, 0.1)
        with torch.no_grad():
            each.tau.fill_(value)
        each.reset_if_closed(theta)
        assert torch.equal(each.tau, torch.full((4, 1), after))
    each = RowThresholds(theta, 0.1)
    with torch.no_grad():
        each.tau.fill_(2.0)
        theta[0, :2] = 3.0
    each.reset_if_closed(theta)
    assert not each.tau.any()  # 2 of 200 left are 1 %, and the layer counts as closed
    with torch.no_grad():
        each.tau.fill_(2.0)
        theta[0, :3] = 3.0
    each.reset_if_closed(theta)
    assert torch.equal(each.tau, torch.full((4, 1), 2.0))


# -- gates --------------------
def test_a_mask_gates_gradients_of_weights_and_scores_have_gradient_times_weight() -> None:
    theta, g = torch.tensor([3.0, -2.0, 5.0], requires_grad=True), torch.tensor([1.0, 10.0, 100.0])
    gate = ScoredMask(theta)
    gate.keep(torch.tensor([0, 2]))
    out = gate(theta)
    out.backward(g)
    assert torch.equal(out, torch.tensor([3.0, 0.0, 5.0]))
    assert torch.equal(theta.grad, torch.tensor([1.0, 0.0, 100.0]))  # type: ignore[arg-type]
    assert torch.equal(gate.score.grad, g * theta.detach())  # type: ignore[arg-type]


def test_movement_scores_step_by_minus_lr_gradient_times_weight() -> None:
    net, train = set_up(momentum=0.0, steps=1, lr=0.1)
    images, labels = next(train.data.train_batches(8, 3, 0))
    with torch.enable_grad():
        expected = {
            name: -0.3 * grad * net.dense_weights()[name]
            for name, grad in gradients(net, (images, labels)).items()
        }
    scores: dict[str, Tensor] = {}
    watch(
        train,
        lambda t: scores.update({n: m.score.detach().clone() for n, m in net.transforms.items()}),
    )  # type: ignore
    Movement(
        sparsity=0.5, allocation=Global(), prune_from=0.0, prune_until=0.9, score_lr_scale=3.0
    ).run(net, train)
    assert all(torch.allclose(scores[name], expected[name], atol=1e-8) for name in expected)


def test_movement_follows_the_cubic_and_keeps_the_best_scores() -> None:
    net, train = set_up()
    kept: list[int] = []
    watch(train, lambda t: kept.append(sum(int(m.kept.sum()) for m in net.transforms.values())))  # type: ignore
    masks: list[dict[str, Tensor]] = []
    steps = train.steps

    def watched() -> Iterator[int]:
        for t in steps():
            best = topk({n: m.score.detach() for n, m in net.transforms.items()}, 166)  # type: ignore
            yield t
        masks.append(best)  # type: ignore[arg-type]

    train.steps = watched  # type: ignore[method-assign, assignment]
    Movement(
        sparsity=0.8, allocation=Global(), prune_from=0.25, prune_until=0.75, update_every=4
    ).run(net, train)
    for t, count in enumerate(kept):
        last = t if t == 39 else t - t % 4
        x = min(1.0, max(0.0, (last - 10) / 20))
        assert count == round((1 - 0.8 * (1 - (1 - x) ** 3)) * TOTAL)
    assert all(torch.equal(w.support, masks[0][n]) for n, w in net.weights.items())  # type: ignore


def test_a_sigmoid_gate_opens_above_its_threshold_and_costs_what_it_is_open() -> None:
    gate = SigmoidGate(torch.zeros(3), tau=0.2, strength=0.5)
    with torch.no_grad():
        gate.score.copy_(torch.tensor([-3.0, -1.0, 2.0]))  # sigmoid: .05, .27, .88
    theta = torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(gate(theta), theta) and gate.penalty(theta) == 0
    gate.rise.fill_(1.0)
    assert torch.equal(gate(theta), torch.tensor([0.0, 2.0, 3.0]))
    assert gate.penalty(theta).item() == pytest.approx(0.5 * gate.score.sigmoid().sum().item())
    gate.rise.fill_(0.2)  # thresholds of .04
    assert torch.equal(gate(theta), theta)


def test_a_higher_penalty_closes_more_gates() -> None:
    densities = []
    for price in (0.0, 0.04, 0.12):
        net = trained(
            SoftMovement(sparsity=0.8, soft_until=1.0, penalty=price, score_lr_scale=100.0)
        )
        densities.append(net.reported["own_density"])
    assert densities[0] > densities[1] > densities[2]


# -- penalties --------------------
def test_halo_profile_is_a_concave_penalty() -> None:
    """min over lambda of xi |w| / lambda^2 + price |lambda| is 1.5 price (2 xi |w| /
    price)^(1/3)."""
    w, xi, price = torch.tensor([0.001, 0.1, -2.0], dtype=torch.float64), 0.3, 0.7
    each = AdaptiveLasso(w, xi, price)
    best = (2 * xi * w.abs() / price) ** (1 / 3)
    with torch.no_grad():
        each.scale.copy_(best)
    profile = 1.5 * price * (2 * xi * w.abs() / price) ** (1 / 3)
    assert torch.allclose(each.penalty(w), profile.sum())
    each.penalty(w).backward()
    assert torch.allclose(each.scale.grad, torch.zeros(3, dtype=torch.float64), atol=1e-12)  # type: ignore
    assert torch.equal(each(w), w)


def test_halo_without_a_penalty_is_dense_training_pruned_at_the_end() -> None:
    net = trained(HALO(sparsity=0.8, soft_until=1.0, xi=0.0, penalty=0.0, tolerance=0.0))
    dense = trained(Dense())
    best = topk({name: theta.abs() for name, theta in dense.dense_weights().items()}, 166)
    for name, w in net.weights.items():
        assert torch.equal(w.support, best[name])  # type: ignore[arg-type]
        assert torch.equal(w.psi, dense.dense_weights()[name].view(-1)[w.support])


# -- powers --------------------
def set_up_powers(alpha: float) -> tuple[Net, Train]:
    net = Net(model(), seed=3)
    PowerProp(alpha=alpha).apply(net)
    return net, Train(net, Blobs(), RECIPE, seed=3)


def test_powers_and_roots_undo_each_other_and_have_the_gradient_of_the_paper() -> None:
    phi = torch.tensor([-2.0, -0.5, 0.0, 0.3, 1.5], dtype=torch.float64, requires_grad=True)
    for alpha in (1.0, 1.5, 2.0, 4.0):
        power = Power(alpha)
        theta = power(phi)
        assert torch.allclose(theta, phi * phi.abs() ** (alpha - 1))
        assert torch.allclose(power.inverse(theta), phi)
        (grad,) = torch.autograd.grad(theta.sum(), phi)
        assert torch.allclose(grad, alpha * phi.detach().abs() ** (alpha - 1))
    assert torch.equal(Power(1.0)(phi), phi)


@pytest.mark.parametrize(
    "method",
    [
        GMP(sparsity=0.8, allocation=Global(), prune_from=0.1, prune_until=0.7, update_every=5),
        SNIP(sparsity=0.8, examples=32),
        Dense(),
    ],
    ids=lambda m: type(m).__name__,
)
def test_power_one_is_the_method_itself(method: GMP) -> None:
    net, train = set_up_powers(1.0)
    method.run(net, train)
    plain = trained(method)
    assert all(
        torch.equal(value, plain.effective_weights()[name])
        for name, value in net.effective_weights().items()
    )


def test_powers_begin_at_the_same_weights_and_leave_scores_of_snip_as_they_are() -> None:
    plain = trained(SNIP(sparsity=0.8, examples=32))
    net, train = set_up_powers(2.0)
    initial = model().state_dict()
    assert all(
        torch.allclose(value, initial[name]) for name, value in net.effective_weights().items()
    )
    SNIP(sparsity=0.8, examples=32).run(net, train)
    assert all(torch.equal(w.support, plain.weights[n].support) for n, w in net.weights.items())  # type: ignore
    assert (
        sum(int(value.count_nonzero()) for value in net.effective_weights().values())
        == net.dim
        == 166
    )


def test_frozen_powerpropagation_weights_keep_their_initial_value() -> None:
    before = model().state_dict()
    net, train = set_up_powers(3.0)
    FreezeNet(sparsity=0.8, examples=32).run(net, train)
    for name, w in net.weights.items():
        held = ~w.trained().view(before[name].shape)
        assert torch.allclose(net.effective_weights()[name][held], before[name][held])
        assert not torch.allclose(net.effective_weights()[name], before[name])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: PowerProp(alpha=0.5), "basis.alpha=0.5 is not allowed. It must be 1 or more."),
        (lambda: STR(soft_until=0.0), "method.soft_until=0.0 is not allowed"),
        (lambda: STR(weight_decay=-1.0), "method.weight_decay=-1.0 is not allowed"),
        (lambda: DST(alpha=-1.0), "method.alpha=-1.0 is not allowed"),
        (lambda: SoftMovement(threshold=0.5), "method.threshold=0.5 is not allowed"),
        (lambda: Movement(prune_from=0.5, prune_until=0.5), "prune_from < prune_until"),
        (lambda: HALO(xi=-1.0), "method.xi=-1.0 is not allowed"),
        (lambda: HALO(tolerance=-1.0), "method.tolerance=-1.0 is not allowed"),
    ],
)
def test_impossible_values_are_refused(make: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        make()  # type: ignore[operator]
    assert message in str(error.value)
