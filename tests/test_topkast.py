"""Top-KAST: the weights that are used, and those that only train."""

from __future__ import annotations

import torch
from dynamic import LEFT, full, line
from torch import Tensor
from toy import set_up, watch

from dimred.methods.dynamic_sparse_training.top_kast import TopKAST, TopKASTMask
from dimred.scores import magnitude
from dimred.select.allocations import Uniform
from dimred.select.topk import topk


def test_topkast_without_exploration_is_static_pruning() -> None:
    pruned, train = set_up()
    pruned.keep(topk(magnitude(pruned), Uniform()(pruned, 0.2)))
    train(0, 39)
    net, train = set_up()
    used: list[dict[str, Tensor]] = []
    watch(train, lambda t: used.append(net.effective_weights()))
    # it chooses again before the last step
    TopKAST(sparsity=0.8, allocation=Uniform(), exploration=0.0, update_every=39, penalty=0.0).run(
        net, train
    )
    assert net.dim == LEFT and all(
        torch.equal(used[38][n], theta) for n, theta in pruned.dense_weights().items()
    )


def test_topkast_trains_the_next_largest_too_and_freezes_the_rest() -> None:
    net, train = set_up()
    looks: list[tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]] = []
    watch(
        train,
        lambda t: looks.append(
            (
                full(net),
                dict(net.supports),
                {  # type: ignore[arg-type]
                    n: each.kept.view(-1).nonzero().view(-1) for n, each in net.transforms.items()
                },
            )
        ),
    )  # type: ignore
    TopKAST(sparsity=0.9, allocation=Uniform(), update_every=8, penalty=1e-3).run(net, train)
    for t, (theta, trained, used) in enumerate(looks):
        for name in net.weights:
            assert (
                len(used[name]) == Uniform()(net, 0.1)[name]
                and torch.isin(used[name], trained[name]).all()
            )  # type: ignore
            held = torch.ones(theta[name].numel(), dtype=torch.bool)
            held[trained[name]] = False
            before = looks[t - 1][0] if t else dict(net.initial())
            assert torch.equal(theta[name].view(-1)[held], before[name].view(-1)[held])
            assert torch.equal(trained[name], looks[t // 8 * 8][1][name])
            if t % 8 == 0 and t:
                size = before[name].view(-1).abs()
                assert size[trained[name]].min() >= size[held].max()
    assert len({tuple(trained["4.weight"].tolist()) for _, trained, _ in looks}) > 2
    theta, _, used = looks[-1]
    assert all(
        torch.equal(w.support, used[n]) and torch.equal(w.psi, theta[n].view(-1)[used[n]])
        for n, w in net.weights.items()
    )


def test_topkast_penalty_weighs_explored_weights_by_one_over_the_density() -> None:
    net = line(4.0, 3.0, 2.0, 1.0)
    maps = {"weight": TopKASTMask(net.weights["weight"].param, 0.5)}
    TopKAST(sparsity=0.75, allocation=Uniform(), update_every=1, penalty=0.5).choose(net, maps)
    theta = net.dense_weights()["weight"].clone().requires_grad_()
    assert maps["weight"].penalty(theta) == 0.5 * (16.0 + 4 * 9.0)
    used = maps["weight"](theta)
    assert used.tolist() == [[4.0, 0.0, 0.0, 0.0]]
    used.sum().backward()
    assert theta.grad.tolist() == [[1.0, 1.0, 1.0, 1.0]]


def test_weights_held_by_keep_do_not_change() -> None:
    net = line(4.0, 3.0, 2.0, 1.0)
    net.keep({"weight": torch.tensor([0, 1])}, base="held")
    with torch.no_grad():
        net.weights["weight"].psi.mul_(10)
    net.keep({"weight": torch.tensor([1, 3])}, base="held")
    assert net.dense_weights()["weight"].tolist() == [[40.0, 30.0, 2.0, 1.0]]
    assert net.weights["weight"].psi.tolist() == [30.0, 1.0]
