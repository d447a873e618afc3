"""Sparse networks from scratch (SNFS): its momentum, and how it distributes weights over layers."""

from __future__ import annotations

import pytest
import torch
from dynamic import buffer
from torch import Tensor, nn
from toy import set_up, watch

from dimred.errors import UserError
from dimred.methods.dynamic_sparse_training.snfs import SNFS, momentum_shares
from dimred.net import Net
from dimred.select.allocations import regrown


def test_snfs_momentum_is_dense_and_that_of_sgd() -> None:
    net, train = set_up(steps=3)
    seen: list[dict[str, Tensor]] = []
    steps = train.steps

    def watched(**how: object):  # type: ignore[no-untyped-def]
        for t in steps(**how):  # type: ignore[arg-type]
            seen.append({name: grad.clone() for name, grad in net.grads().items()})
            yield t

    train.steps = watched  # type: ignore[method-assign]
    SNFS(sparsity=0.8, update_every=2).run(net, train)
    for name in net.weights:
        expected = ((seen[0][name] * 0.9) + seen[1][name]) * 0.9 + seen[2][name]
        assert torch.equal(net.method_state[f"momentum/{name}"], expected)
    assert expected.view(-1)[~net.weights[name].trained()].any()


def test_snfs_new_weights_start_with_the_momentum_that_chose_them() -> None:
    """In the step that rewires they train like the others: v <- mu v + g, theta = 0 - lr v, with
    the dense momentum v of all steps before and the gradient g of this one."""
    net, train = set_up(lr=0.1, momentum=0.9, weight_decay=0.0)
    before: dict[str, Tensor] = {}
    joined = 0

    def see(t: int) -> None:
        nonlocal joined
        for name, w in net.weights.items():
            fresh = w.gather(~before[name]) if t == 8 else torch.zeros_like(w.psi, dtype=torch.bool)
            dense = w.gather(net.method_state[f"momentum/{name}"].view(-1)) if t == 8 else w.psi
            assert torch.equal(buffer(net, name)[fresh], dense[fresh])
            assert torch.equal(w.psi[fresh], -0.1 * dense[fresh])
            joined += int(dense[fresh].count_nonzero())
            before[name] = w.trained()

    watch(train, see)
    train.total = 9
    SNFS(sparsity=0.8, update_every=8, min_drop_fraction=0.5).run(net, train)
    assert joined > 20


def test_snfs_new_weights_train_at_once_where_their_layer_becomes_full() -> None:
    net, train = set_up()
    method, (full, *others) = (
        SNFS(sparsity=0.2, update_every=2, min_drop_fraction=0.5),
        net.weights,
    )
    method.keep_random(net)
    for _ in train.steps(0, 1, dense_grad=lambda t: True):
        gradient = net.grads()[full].clone().view(-1)
        net.method_state |= {
            f"momentum/{name}": torch.zeros_like(net.grads()[name]) for name in others
        }
        net.method_state[f"momentum/{full}"] = torch.ones_like(net.grads()[full])
        method.update_mask(net, 0.5)
        assert net.weights[full].support is None
        assert torch.equal(net.weights[full].psi.grad, gradient)
        assert torch.equal(net.grads()[full].view(-1), gradient)


def test_a_nan_momentum_is_reported() -> None:
    net, train = set_up()
    method = SNFS(sparsity=0.8, update_every=2, min_drop_fraction=0.5)
    method.keep_random(net)
    for _ in train.steps(0, 1, dense_grad=lambda t: True):
        net.method_state |= {
            f"momentum/{name}": torch.full_like(grad, torch.nan)
            for name, grad in net.grads().items()
        }
        with pytest.raises(UserError, match=r"training has diverged. Try a smaller recipe\.lr"):
            method.update_mask(net, 0.5)


def test_snfs_shares_sum_to_one_and_are_mean_sizes_over_trained_weights() -> None:
    net = Net(nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 2, bias=False)))
    net.keep({"0.weight": torch.tensor([0, 1])})
    shares = momentum_shares(
        net,
        {
            "0.weight": torch.tensor([[1.0, 2.0, 50.0, 50.0]]),
            "1.weight": torch.tensor([[3.0], [6.0]]),
        },
    )
    assert shares == {"0.weight": 0.25, "1.weight": 0.75}
    assert momentum_shares(net, {n: torch.zeros_like(w.param) for n, w in net.weights.items()}) == {
        "0.weight": 0.0,
        "1.weight": 0.0,
    }


def test_weights_that_do_not_fit_into_a_layer_go_to_the_others() -> None:
    net, _ = set_up()  # 36, 768 and 24 weights
    names = list(net.weights)
    net.keep({name: torch.arange(20) for name in names})

    def add(left: tuple[int, ...], shares: tuple[float, ...]) -> list[int]:
        return [
            *regrown(
                net, dict(zip(names, left, strict=True)), dict(zip(names, shares, strict=True))
            ).values()
        ]

    assert add((10, 10, 10), (0.2, 0.4, 0.4)) == [6, 12, 12]
    assert add((10, 10, 10), (0.0, 0.0, 1.0)) == [8, 8, 14]  # 14 is all that the last one can take
    assert add((10, 10, 20), (0.0, 0.0, 0.0)) == [8, 8, 4]
    assert add((20, 20, 20), (0.2, 0.4, 0.4)) == [0, 0, 0]
