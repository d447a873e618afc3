"""DeepR: signs, and the random walk of weights."""

from __future__ import annotations

import torch
from dynamic import LEFT, line
from torch import Tensor
from toy import set_up, watch

from dimred.methods.dynamic_sparse_training.deep_r import DeepR, Signed
from dimred.scores import generator
from dimred.select.allocations import Uniform


def test_deepr_no_weight_changes_sign_and_flipped_ones_are_not_used() -> None:
    net, train = set_up(lr=0.3)
    woken = 0
    support: dict[str, Tensor] = {}

    def see(t: int) -> None:
        nonlocal woken
        for name, used in net.effective_weights().items():
            sign = torch.where(net.initial()[name] < 0, -1.0, 1.0)
            assert (used * sign >= 0).all()
            w = net.weights[name]
            fresh = ~torch.isin(w.support, support.get(name, w.support))
            assert not w.psi[fresh].any()  # they wait there until they have felt a gradient
            woken += int(fresh.sum())
            support[name] = w.support

    watch(train, see)
    DeepR(sparsity=0.8, allocation=Uniform(), l1=1e-3, noise=1e-2).run(net, train)
    assert woken > 20 and net.dim == LEFT and not net.transforms
    assert all(
        (theta * net.initial()[name] >= 0).all() for name, theta in net.dense_weights().items()
    )


def test_deepr_walks_towards_zero_and_at_random() -> None:
    net = line(1.0, -2.0, 3.0, -4.0)
    net.keep({"weight": torch.tensor([1, 2])})
    method, maps = (
        DeepR(sparsity=0.5, allocation=Uniform(), l1=0.1, noise=0.01),
        {"weight": Signed(net.initial()["weight"])},
    )
    draws = torch.randn(2, generator=generator(net, "walk 7"))
    method.walk(net, maps, 7, 0.5)
    expected = (
        torch.tensor([-2.0, 3.0]) + 0.5 * 0.01 * draws - 0.5 * 0.1 * torch.tensor([-1.0, 1.0])
    )
    assert torch.allclose(net.weights["weight"].psi, expected)


def test_deepr_a_weight_at_zero_has_its_gradient_and_one_of_the_wrong_sign_none() -> None:
    theta = torch.tensor([0.0, 2.0, -1.0, -3.0], requires_grad=True)
    used = Signed(torch.tensor([1.0, 1.0, 1.0, -1.0]))(theta)
    used.sum().backward()
    assert torch.equal(used, torch.tensor([0.0, 2.0, 0.0, -3.0])) and theta.grad.tolist() == [
        1.0,
        1.0,
        0.0,
        1.0,
    ]
