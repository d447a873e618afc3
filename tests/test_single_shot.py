"""Scores that are computed once, against closed forms and finite differences: LAMP, SNIP, GraSP,
CroP, ProsPr."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from at_init import (
    batch,
    make,
    mlp,
    same,
    supports_same,
)
from torch import Tensor, nn
from toy import set_up

from dimred.methods.pruning_at_init.single_shot import (
    SNIP,
    CroP,
    GraSP,
    ProsPr,
)
from dimred.net import Net
from dimred.scores import (
    balanced,
    gradient_flow,
    gradients,
    grasp,
    halves_by_class,
    lamp,
    prospr,
    snip,
)
from dimred.select.allocations import Global


def test_lamp_by_hand() -> None:
    net = Net(nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 2, bias=False)))
    with torch.no_grad():
        net.weights["0.weight"].psi.copy_(torch.tensor([1.0, -3.0, 2.0, 0.0]))
        net.weights["1.weight"].psi.copy_(torch.tensor([0.1, -0.1]))
    scores = lamp(net)
    assert torch.allclose(
        scores["0.weight"], torch.tensor([[1 / 14, 1.0, 4 / 13, 0.0]], dtype=torch.float64)
    )
    assert torch.allclose(
        scores["1.weight"].view(-1), torch.tensor([1.0, 0.5], dtype=torch.float64)
    )


def test_lamp_does_not_depend_on_the_scale_of_a_layer() -> None:
    net, other = Net(mlp(6, 5, 3).double()), Net(mlp(6, 5, 3).double())
    with torch.no_grad():
        other.weights["0.weight"].psi.mul_(8)
    assert all(
        torch.allclose(lamp(net)[name], lamp(other)[name], rtol=1e-12) for name in net.weights
    )


def test_a_balanced_batch_has_equally_many_examples_of_each_class() -> None:
    labels = torch.tensor([0, 0, 1, 0, 2, 1, 1, 0])
    images, chosen = balanced((torch.arange(8), labels), 2)
    assert images.tolist() == [0, 1, 2, 4, 5] and chosen.tolist() == [0, 0, 1, 2, 1]


def test_grasp_is_the_change_of_the_squared_gradient() -> None:
    """theta (H g) = theta/2 d|g|^2/dtheta, by finite differences, and its sum is theta^T H g."""
    net = Net(mlp(6, 5, 3).double())
    images, labels = batch()

    def loss(out: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(out / 2.0, labels)

    def squared(thetas: dict[str, Tensor]) -> float:
        return sum(
            float(g.square().sum())
            for g in gradients(net, (images, labels), loss, at=thetas).values()
        )

    thetas = {name: theta.clone() for name, theta in net.dense_weights().items()}
    scores = grasp(net, (images, labels), 2.0)
    eps = 1e-6
    for name, theta in thetas.items():
        for i in range(theta.numel()):
            up, down = ({**thetas, name: theta.clone()} for _ in range(2))
            up[name].view(-1)[i] += eps
            down[name].view(-1)[i] -= eps
            slope = (squared(up) - squared(down)) / (2 * eps)
            assert math.isclose(
                scores[name].view(-1)[i], theta.view(-1)[i] * slope / 2, rel_tol=1e-5, abs_tol=1e-10
            )
    along = [
        squared({n: (1 + sign * eps) * theta for n, theta in thetas.items()}) for sign in (1, -1)
    ]
    total = sum(float(score.sum()) for score in scores.values())
    assert math.isclose(total, (along[0] - along[1]) / (4 * eps), rel_tol=1e-6)


def test_grasp_is_double_precision_for_a_single_precision_net() -> None:
    images, labels = batch()
    model = mlp(6, 5, 3)
    exact = grasp(Net(copy.deepcopy(model).double()), (images.float(), labels))
    assert (
        same(grasp(Net(model), (images.float(), labels)), exact)
        and exact["0.weight"].dtype == torch.float64
    )


def test_gradient_flow_of_batches_is_that_of_the_sum_of_their_gradients() -> None:
    """theta/2 d|g|^2/dtheta with g the sum of the gradients of two batches, in plain PyTorch."""
    model = mlp(6, 5, 3).double()
    images, labels = batch()
    first, second = (images[:5], labels[:5]), (images[5:], labels[5:])
    scores = gradient_flow(Net(copy.deepcopy(model)), [first, second], temperature=2.0)
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    loss = sum(F.cross_entropy(model(x) / 2.0, y) for x, y in (first, second))
    grads = torch.autograd.grad(loss, weights, create_graph=True)
    slopes = torch.autograd.grad(sum(g.square().sum() for g in grads), weights)
    for score, weight, slope in zip(scores.values(), weights, slopes, strict=True):
        assert torch.allclose(score, weight * slope / 2, rtol=1e-10, atol=1e-15)


def test_halves_contain_the_first_and_the_last_classes() -> None:
    labels = torch.tensor([2, 0, 1, 3, 2, 0, 3, 1])
    first, second = halves_by_class((torch.arange(8), labels))
    assert first[0].tolist() == [1, 5, 2, 7] and first[1].tolist() == [0, 0, 1, 1]
    assert second[0].tolist() == [0, 4, 3, 6] and second[1].tolist() == [2, 2, 3, 3]


def test_halves_change_grasp_only_through_the_statistics_of_norms() -> None:
    """Without norms, the sums over two equal halves are twice the means over all: scores are four
    times as large."""

    def scores(halves: bool, norms: bool) -> dict[str, Tensor]:
        net, train = set_up()
        if not norms:
            net = Net(nn.Sequential(nn.Flatten(), *mlp(16, 8, 2)))
        # type: ignore
        return GraSP(
            sparsity=0.8,
            allocation=Global(),
            base="zero",
            ablation="none",
            examples_per_class=6,
            temperature=200.0,
            split_batch=halves,
        ).scores(net, train)

    for norms in (False, True):
        whole, halves = scores(False, norms), scores(True, norms)
        close = [
            torch.allclose(halves[name], 4 * whole[name], rtol=1e-8, atol=1e-20) for name in whole
        ]
        assert all(close) if not norms else not any(close)


def test_crop_is_the_size_of_the_gradient_flow_of_plain_batches() -> None:
    net, train = set_up()
    images, labels = train.sample(24)
    three = [(images[i : i + 8], labels[i : i + 8]) for i in (0, 8, 16)]
    signed, crop = (
        gradient_flow(net, three, 1.0),
        CroP(
            sparsity=0.8, allocation=Global(), base="zero", ablation="none", examples=8, batches=3
        ).scores(net, train),
    )
    assert all(torch.equal(crop[name], signed[name].abs()) for name in crop)
    assert any((score < 0).any() for score in signed.values())


def test_snip_ignores_scales_that_cancel_and_sums_to_the_same_in_every_layer() -> None:
    """The net is homogeneous in each layer, so the sum of theta * dL/dtheta is that of logits *
    dL/dlogits in all."""
    net = Net(mlp(16, 12, 8, 5))
    batch = torch.randn(32, 16, generator=torch.Generator().manual_seed(1)), torch.arange(32) % 5
    scores, grads = snip(net, batch), gradients(net, batch)
    sums = [float((theta * grads[name]).sum()) for name, theta in net.dense_weights().items()]
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-4) and abs(sums[0]) > 1e-3
    with torch.no_grad():
        net.weights["0.weight"].psi.mul_(2)
        net.weights["2.weight"].psi.div_(2)
    again = snip(net, batch)
    assert all(torch.allclose(scores[name], again[name], rtol=1e-4, atol=1e-9) for name in scores)


def test_prospr_without_steps_or_with_learning_rate_zero_is_snip() -> None:
    net = Net(mlp(6, 5, 3, bias=True).double())
    first, last = batch(), batch(9)
    expected = snip(net, last)
    assert same(prospr(net, [last], 0.5), expected)
    for first_order in (False, True):
        assert same(prospr(net, [first, first, last], 0.0, first_order), expected)
    assert not same(prospr(net, [first, last], 0.5), expected)
    assert supports_same(
        ProsPr(
            sparsity=0.8,
            allocation=Global(),
            base="zero",
            ablation="none",
            examples=32,
            inner_steps=0,
            inner_lr=0.1,
            first_order=False,
        ),
        make(SNIP),
    )


def test_prospr_differentiates_through_the_steps() -> None:
    """dL(theta_1)/dc by finite differences in c, for theta_1 = c theta - lr dL/dtheta(c theta)."""
    net = Net(mlp(4, 3, 2).double())
    first, last = batch(8, 4, 2), batch(6, 4, 2)
    scores = prospr(net, [first, last], 0.7)
    thetas = {name: theta.clone() for name, theta in net.dense_weights().items()}

    def after(name: str, i: int, eps: float) -> float:
        at = {**thetas, name: thetas[name].clone()}
        at[name].view(-1)[i] *= 1 + eps
        grads = gradients(net, first, at=at)
        moved = {n: theta - 0.7 * grads[n] for n, theta in at.items()}
        with net.weights_in_place(moved) as model:
            return float(F.cross_entropy(model(last[0]), last[1]))

    for name, score in scores.items():
        for i in range(score.numel()):
            slope = (after(name, i, 1e-5) - after(name, i, -1e-5)) / 2e-5
            assert math.isclose(score.view(-1)[i], abs(slope), rel_tol=1e-5, abs_tol=1e-8)


def test_biases_take_the_inner_steps_of_prospr_unless_told_not_to() -> None:
    """dL(theta_1, b_1)/dc by finite differences in c, in plain PyTorch."""
    model = mlp(3, 3, 2, bias=True).double()
    with torch.no_grad():
        model[0].bias.fill_(0.3)
    names = [name for name, _ in model.named_parameters()]
    first, last = batch(8, 3, 2), batch(6, 3, 2)

    def after(weight: int, i: int, eps: float, others: bool) -> float:
        at = [p.detach().clone() for p in model.parameters()]
        at[weight].view(-1)[i] *= 1 + eps
        at = [p.requires_grad_() for p in at]

        def loss(values: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
            hidden = F.linear(x, values[0], values[1]).relu()
            return F.cross_entropy(F.linear(hidden, values[2], values[3]), y)

        grads = torch.autograd.grad(loss(at, *first), at)
        moved = [
            p - 0.7 * g if others or p.dim() > 1 else p for p, g in zip(at, grads, strict=True)
        ]
        return loss(moved, *last).item()

    net = Net(copy.deepcopy(model))
    different = prospr(net, [first, last], 0.7, others=False)
    for others in (True, False):
        scores = prospr(net, [first, last], 0.7, others=others)
        for name, score in scores.items():
            for i in range(score.numel()):
                one, other = (after(names.index(name), i, eps, others) for eps in (1e-5, -1e-5))
                assert math.isclose(
                    score.view(-1)[i], abs(one - other) / 2e-5, rel_tol=1e-5, abs_tol=1e-8
                )
    assert not same(prospr(net, [first, last], 0.7), different)  # they do by default
