"""Each method against a closed form or a truth table worked out by hand."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from toy import set_up, watch

from dimred.methods.dynamic_sparse_training.rigl import RigL
from dimred.methods.dynamic_sparse_training.set import SET, rank_by_sign
from dimred.methods.gradual_pruning import GMP
from dimred.methods.lottery_tickets.imp import IMP
from dimred.methods.pruning_at_init.single_shot import SNIP, FreezeNet, Magnitude, Random
from dimred.methods.reference_networks import Dense
from dimred.net import Net
from dimred.scores import snip
from dimred.select.allocations import ERK, Global, Uniform
from dimred.select.topk import topk

METHODS = [
    Random(sparsity=0.8, allocation=Global(), base="zero", ablation="none"),
    Random(sparsity=0.8, allocation=ERK(power=1.0), base="zero", ablation="none"),
    Random(sparsity=0.8, allocation=Uniform(), base="zero", ablation="none"),
    Magnitude(sparsity=0.8, allocation=Global(), base="zero", ablation="none"),
    SNIP(sparsity=0.8, allocation=Global(), base="zero", ablation="none", examples=32),
    FreezeNet(sparsity=0.8, allocation=Global(), base="init", ablation="none", examples=32),
    IMP(
        sparsity=0.8,
        allocation=Global(),
        prune_rate=0.5,
        rewind_step=4,
        rewind="weights",
        criterion="large_final",
        pruned_value="zero",
    ),
    SET(sparsity=0.8, allocation=ERK(power=1.0), update_every=8, drop_fraction=0.3),
    RigL(
        sparsity=0.8,
        allocation=ERK(power=1.0),
        update_every=5,
        drop_fraction=0.3,
        update_until=0.75,
    ),
    GMP(sparsity=0.8, allocation=Global(), prune_from=0.1, prune_until=0.7, update_every=5),
]


@pytest.mark.parametrize(
    "method", METHODS, ids=lambda m: f"{type(m).__name__}-{type(m.allocation).__name__}"
)
def test_the_number_of_trained_weights_is_exact(method: Random) -> None:
    net, train = set_up()
    counts: list[int] = []
    watch(train, lambda t: counts.append(net.dim))
    method.run(net, train)
    assert net.dim == round(0.2 * net.total) == 166
    if not isinstance(method, (IMP, GMP)):  # theirs is met at the end, the others' at every step
        assert set(counts) == {166}


# -- at init -------------------------------------------------------------------------------------
def test_dense_trains_everything() -> None:
    net, train = set_up()
    Dense().run(net, train)
    assert net.dim == net.total and all(w.support is None for w in net.weights.values())


def test_random_densities_are_those_of_the_allocation() -> None:
    net, train = set_up(steps=1)
    Random(sparsity=0.5, allocation=Uniform(), base="zero", ablation="none").run(net, train)
    assert [w.dim for w in net.weights.values()] == [18, 384, 12]
    net, train = set_up(steps=1)
    Random(sparsity=0.5, allocation=Global(), base="zero", ablation="none").run(net, train)
    for w in net.weights.values():  # binomial: within four standard deviations of one half
        assert abs(w.dim - w.size / 2) < 4 * math.sqrt(w.size / 4)


def test_magnitude_keeps_the_largest_initial_weights_whatever_their_sign() -> None:
    net, train = set_up(steps=1)
    initial = torch.cat([net.initial()[name].view(-1) for name in net.weights])
    Magnitude(sparsity=0.9, allocation=Global(), base="zero", ablation="none").run(net, train)
    kept = torch.cat([w.trained() for w in net.weights.values()])
    assert initial[kept].abs().min() >= initial[~kept].abs().max()


def test_freezenet_trains_the_weights_of_snip_and_leaves_the_others_at_their_initial_value() -> (
    None
):
    pruned, train = set_up()
    SNIP(sparsity=0.9, allocation=Global(), base="zero", ablation="none", examples=32).run(
        pruned, train
    )
    net, train = set_up()
    FreezeNet(sparsity=0.9, allocation=Global(), base="init", ablation="none", examples=32).run(
        net, train
    )
    for name, w in net.weights.items():
        assert torch.equal(w.support, pruned.weights[name].support)
        assert torch.equal(w.dense()[~w.trained()], net.initial()[name].view(-1)[~w.trained()])
        assert not pruned.weights[name].dense()[~w.trained()].any()


def test_freezenet_starts_as_the_dense_net() -> None:
    net, train = set_up()
    batch = train.sample(32)
    dense, _ = set_up()
    net.keep(topk(snip(net, batch), 50), base="init")
    assert torch.equal(net(batch[0]), dense(batch[0]))


# -- dynamic -------------------------------------------------------------------------------------
def test_set_drops_the_same_fraction_of_either_sign() -> None:
    net = Net(nn.Linear(10, 1, bias=False))
    with torch.no_grad():
        net.weights["weight"].psi.copy_(
            torch.tensor([0.1, 0.4, 0.2, 0.3, -5.0, -9.0, 7.0, 0.0, 0.0, 0.0])
        )
    net.keep({"weight": torch.arange(7)})
    # positive, by size: 0.1 0.2 0.3 0.4 7.0 -> fifths; negative: 5 9 -> halves, however large they
    # are
    expected = torch.tensor([0.2, 0.8, 0.4, 0.6, 0.5, 1.0, 1.0, 0.0, 0.0, 0.0])
    assert torch.allclose(rank_by_sign(net)["weight"], expected)


def test_set_rewires_periodically_and_newcomers_start_at_zero() -> None:
    net, train = set_up()
    supports: list[dict[str, Tensor]] = []
    fresh: list[bool] = []
    keep = net.keep

    def kept(chosen: dict[str, Tensor], **how: str) -> None:
        before = net.supports
        keep(chosen, **how)  # type: ignore[arg-type]
        supports.append(net.supports)  # type: ignore[arg-type]
        joined = [
            w.psi[~torch.isin(w.support, before[n])]
            for n, w in net.weights.items()
            if before[n] is not None
        ]
        fresh.append(all(not j.any() for j in joined))

    net.keep = kept  # type: ignore[method-assign, assignment]
    SET(sparsity=0.8, allocation=Uniform(), update_every=8, drop_fraction=0.3).run(net, train)
    assert len(supports) == 1 + 2 * 4 and all(fresh)  # once to begin, then at 8, 16, 24 and 32
    counts = [
        {name: len(s) for name, s in support.items()} for support in (supports[0], *supports[2::2])
    ]
    assert all(count == counts[0] for count in counts)
    dropped = {name: len(s) for name, s in supports[1].items()}
    assert dropped == {name: n - int(0.3 * n) for name, n in counts[0].items()}


def test_rigl_updates_follow_the_schedule_and_do_not_train() -> None:
    net, train = set_up()
    method = RigL(
        sparsity=0.8,
        allocation=ERK(power=1.0),
        update_every=5,
        drop_fraction=0.3,
        update_until=0.75,
    )
    moved: list[bool] = []
    asked: list[bool] = []
    thetas: list[dict[str, Tensor]] = []
    supports: list[dict[str, Tensor]] = []

    def see(t: int) -> None:
        now = {name: theta.clone() for name, theta in net.dense_weights().items()}
        if thetas:
            stayed = {
                n: w.support[torch.isin(w.support, supports[-1][n])] for n, w in net.weights.items()
            }
            moved.append(
                any(
                    not torch.equal(now[n].view(-1)[stayed[n]], thetas[-1][n].view(-1)[stayed[n]])
                    for n in net.weights
                )
            )
            asked.append(net.dense_gradients.kept)
        thetas.append(now)
        supports.append(net.supports)  # type: ignore[arg-type]

    watch(train, see)
    method.run(net, train)
    updates = [t for t in range(1, 40) if not moved[t - 1]]
    assert (
        updates == [5, 10, 15, 20, 25] == [t for t in range(1, 40) if asked[t - 1]]
    )  # T_end = 30 is not one
    for t in range(1, 40):
        same = all(torch.equal(supports[t][n], supports[t - 1][n]) for n in net.weights)
        assert same == (t not in updates)
        for name, w in net.weights.items():
            joined = ~torch.isin(supports[t][name], supports[t - 1][name])
            assert (
                not thetas[t][name].view(-1)[supports[t][name][joined]].any()
            )  # newcomers are zero
            end = 0.75 * 40
            most = int(0.3 / 2 * (1 + math.cos(math.pi * t / end)) * w.dim) if t in updates else 0
            assert int(joined.sum()) <= most


def test_rigl_grows_where_the_gradient_is_largest() -> None:
    net, train = set_up()
    method = RigL(
        sparsity=0.9, allocation=Uniform(), update_every=1, drop_fraction=0.5, update_until=1.0
    )
    steps = train.steps
    seen: list[bool] = []

    def watched(**how: Callable[[int], bool]) -> Iterator[int]:
        for t in steps(**how):
            before = net.supports
            grads = {n: g.abs().view(-1) for n, g in net.grads().items()} if t else {}
            yield t
            for name, w in net.weights.items() if t else ():
                joined = w.support[~torch.isin(w.support, before[name])]
                outside = ~w.trained()
                outside[before[name]] = (
                    False  # what was dropped competed, too, but may have lost to its size
                )
                if len(joined) and outside.any():
                    seen.append(bool(grads[name][joined].min() >= grads[name][outside].max()))

    train.steps = watched  # type: ignore[method-assign, assignment]
    method.run(net, train)
    assert len(seen) > 30 and all(seen)


# -- gradual -------------------------------------------------------------------------------------
def test_gmp_density_is_the_cubic_and_pruned_weights_stay_zero() -> None:
    net, train = set_up()
    method = GMP(
        sparsity=0.9, allocation=Global(), prune_from=0.25, prune_until=0.75, update_every=4
    )  # of 40 steps: from 10 to 30, every 4
    dims: list[int] = []
    zeros: list[dict[str, Tensor]] = []

    def see(t: int) -> None:
        dims.append(net.dim)
        zeros.append({name: ~w.trained() for name, w in net.weights.items()})

    watch(train, see)
    method.run(net, train)

    def density(t: int) -> float:
        return 1 - 0.9 * (1 - (1 - (t - 10) / 20) ** 3)

    last = 0
    for t in range(40):
        last = t if t in (10, 14, 18, 22, 26, 30) else last
        assert dims[t] == (round(density(last) * net.total) if t >= 10 else net.total)
        if t:
            assert all((zeros[t][n] | ~zeros[t - 1][n]).all() for n in net.weights)
    assert dims[-1] == round((1 - 0.9) * net.total)
    assert all(not w.dense()[~w.trained()].any() for w in net.weights.values())
