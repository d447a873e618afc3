"""Dynamic sparse training against closed forms, truth tables and the limits in which two methods
are one."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from toy import RECIPE, Blobs, set_up, watch

from dimred.errors import UserError
from dimred.methods.dynamic_sparse_training.deep_r import DeepR, Signed
from dimred.methods.dynamic_sparse_training.dsr import DSR, below
from dimred.methods.dynamic_sparse_training.granet import GraNet
from dimred.methods.dynamic_sparse_training.itop import ITOP
from dimred.methods.dynamic_sparse_training.mest import MEST
from dimred.methods.dynamic_sparse_training.rigl import RigL
from dimred.methods.dynamic_sparse_training.set import SET
from dimred.methods.dynamic_sparse_training.snfs import SNFS, momentum_shares
from dimred.methods.dynamic_sparse_training.srigl import SRigL, best_of_rows
from dimred.methods.dynamic_sparse_training.top_kast import Explored, TopKAST
from dimred.methods.gradual_pruning import GMP
from dimred.methods.nm_sparsity import NM, LargestOf
from dimred.methods.reference_networks import Dense
from dimred.net import Net
from dimred.net.coordinates import Supports
from dimred.scores import generator, magnitude, random_scores
from dimred.select.allocate import ERK, Global, Uniform, regrown
from dimred.select.rewiring import drop_counts, grow_random
from dimred.select.schedules import cosine
from dimred.select.topk import topk
from dimred.training.loop import Train

TOTAL, LEFT = 828, 166  # covered weights of the toy, and what sparsity 0.8 leaves
IN_LAYERS = [
    SET(sparsity=0.8, allocation=ERK(power=1.0), update_every=8, drop_fraction=0.3),
    RigL(
        sparsity=0.8,
        allocation=ERK(power=1.0),
        update_every=5,
        drop_fraction=0.3,
        update_until=0.75,
    ),
    ITOP(
        sparsity=0.8,
        allocation=ERK(power=1.0),
        update_every=5,
        drop_fraction=0.5,
        min_drop_fraction=0.005,
        grow="random",
    ),
    ITOP(
        sparsity=0.8,
        allocation=ERK(power=1.0),
        update_every=5,
        drop_fraction=0.5,
        min_drop_fraction=0.005,
        grow="gradient",
    ),
    MEST(
        sparsity=0.8,
        allocation=ERK(power=1.0),
        update_every=8,
        drop_fractions=(0.4, 0.2),
        stage_ends=(0.5, 0.7),
        soft_memory_bound=False,
        gradient_weight=0.1,
    ),
    GraNet(
        sparsity=0.8,
        allocation=ERK(power=1.0),
        initial_sparsity=0.8,
        prune_until=0.5,
        update_every=5,
        drop_fraction=0.5,
        min_drop_fraction=0.005,
    ),
    DeepR(sparsity=0.8, allocation=Uniform(), l1=1e-3, noise=1e-2),
]
ACROSS = [
    SNFS(
        sparsity=0.8,
        allocation=Uniform(),
        update_every=8,
        drop_fraction=0.5,
        min_drop_fraction=0.005,
        momentum=0.9,
    ),
    DSR(
        sparsity=0.8,
        allocation=Uniform(),
        update_every=3,
        double_period_at=(0.4, 0.7),
        update_until=0.95,
        drop_fraction=0.1,
        initial_threshold=1e-2,
    ),
]
GROWING = [
    MEST(
        sparsity=0.8,
        allocation=ERK(power=1.0),
        update_every=8,
        drop_fractions=(0.5, 0.25),
        stage_ends=(0.5, 0.7),
        soft_memory_bound=True,
        gradient_weight=0.1,
    ),
    GraNet(
        sparsity=0.8,
        allocation=ERK(power=1.0),
        initial_sparsity=0.5,
        prune_until=0.5,
        update_every=5,
        drop_fraction=0.5,
        min_drop_fraction=0.005,
    ),
]


def label(method: object) -> str:
    return "-".join(
        [
            type(method).__name__,
            *(str(v) for v in vars(method).values() if isinstance(v, (str, bool))),
        ]
    )


def dims(net: Net) -> dict[str, int]:
    return {name: w.dim for name, w in net.weights.items()}


def full(net: Net) -> dict[str, Tensor]:
    return {name: theta.clone() for name, theta in net.dense_weights().items()}


def same(one: Net, other: Net) -> bool:
    return all(
        torch.equal(theta, other.dense_weights()[name])
        for name, theta in one.dense_weights().items()
    )


def line(*values: float) -> Net:
    """A net of one layer with these weights."""
    layer = nn.Linear(len(values), 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([values]))
    return Net(layer)


# -- what all of them promise --------------------
@pytest.mark.parametrize("method", IN_LAYERS + ACROSS, ids=label)
def test_there_are_as_many_weights_in_every_step(method: SET) -> None:
    net, train = set_up()
    seen: list[dict[str, int]] = []
    supports: set[tuple[int, ...]] = set()

    def see(t: int) -> None:
        seen.append(dims(net))
        supports.add(tuple(net.weights["4.weight"].support.tolist()))

    watch(train, see)
    method.run(net, train)
    assert all(sum(each.values()) == LEFT for each in [*seen, dims(net)]) and len(supports) > 2
    if method in IN_LAYERS:
        assert all(each == seen[0] == dims(net) for each in seen)
    else:
        assert seen[0] != seen[-1]


@pytest.mark.parametrize("method", IN_LAYERS + ACROSS[1:] + GROWING, ids=label)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_who_joins_starts_at_zero_without_momentum(method: SET, optimizer: str) -> None:
    net, train = set_up(optimizer=optimizer, lr=0.03)
    keep, joined_ever = net.keep, 0

    def kept(supports: Supports, **how: str) -> None:
        nonlocal joined_ever
        before = {name: w.trained() for name, w in net.weights.items()}
        keep(supports, **how)  # type: ignore[arg-type]
        for name, w in net.weights.items():
            joined = w.gather(~before[name])
            joined_ever += int(joined.sum())
            assert not w.psi[joined].any()
            for value in (net.optimizer.state[w.psi] if net.optimizer else {}).values():
                assert value.shape != w.psi.shape or not value[joined].any()

    net.keep = kept  # type: ignore[method-assign]
    method.run(net, train)
    assert joined_ever > 5


@pytest.mark.parametrize(
    "method",
    [
        *IN_LAYERS,
        *ACROSS,
        *GROWING,
        TopKAST(
            sparsity=0.8, allocation=ERK(power=1.0), exploration=1.0, update_every=5, penalty=1e-2
        ),
        SRigL(
            sparsity=0.8,
            allocation=ERK(power=1.0),
            update_every=5,
            drop_fraction=0.3,
            update_until=0.75,
            min_salient_fraction=0.3,
        ),
    ],
    ids=label,
)
def test_without_sparsity_it_is_dense_training(method: SET) -> None:
    dense, train = set_up()
    Dense().run(dense, train)
    net, train = set_up()
    type(method)(**(vars(method) | {"sparsity": 0.0})).run(net, train)
    assert same(net, dense)


# -- SET, RigL --------------------
def test_the_fraction_falls_from_alpha_to_zero() -> None:
    assert cosine(0.3, 0.0, 0.0) == 0.3 and cosine(0.3, 0.0, 1.0) == 0.0
    assert cosine(0.5, 0.005, 0.5) == pytest.approx(0.2525) and cosine(0.5, 0.005, 1.0) == 0.005


def test_rigl_that_grows_by_size_stands_still() -> None:
    net, train = set_up()
    net.grads = net.dense_weights  # type: ignore[method-assign]
    seen: list[dict[str, Tensor]] = []
    watch(train, lambda t: seen.append({name: w.support for name, w in net.weights.items()}))
    RigL(
        sparsity=0.8, allocation=Uniform(), update_every=4, drop_fraction=0.3, update_until=0.75
    ).run(net, train)
    assert all(
        torch.equal(support, seen[0][name]) for each in seen for name, support in each.items()
    )
    assert net.support_version > 5  # and not because nothing was due


def test_rigl_drops_the_smallest_weights_and_grows_where_the_gradient_is_largest() -> None:
    net, train = set_up()
    keep, updates, returned = net.keep, 0, 0

    def kept(supports: Supports) -> None:
        nonlocal updates, returned
        updates += net.has_trained  # the first time it is the random start
        for name, w in net.weights.items() if net.has_trained else ():
            count = int(cosine(0.3, 0.0, 5 * updates / 30) * w.dim)
            size, gradient = w.dense().abs().tolist(), net.grads()[name].abs().view(-1).tolist()
            trained = w.trained().nonzero().view(-1).tolist()
            stay = sorted(trained, key=lambda i: (size[i], -i))[count:]
            others = [i for i in range(w.size) if i not in stay]
            grown = sorted(others, key=lambda i: (gradient[i], -i))[len(others) - count :]
            assert w.support is None or supports[name].tolist() == sorted(stay + grown)  # type: ignore[union-attr]
            returned += len({*grown} & {*trained})
        before = full(net)
        keep(supports)
        for name, w in (
            net.weights.items() if net.has_trained else ()
        ):  # who stays or returns has its value, others none
            assert torch.equal(w.dense(), torch.where(w.trained(), before[name].view(-1), 0.0))

    net.keep = kept  # type: ignore[method-assign, assignment]
    RigL(
        sparsity=0.8,
        allocation=ERK(power=1.0),
        update_every=5,
        drop_fraction=0.3,
        update_until=0.75,
    ).run(net, train)
    assert updates == 5 and returned > 0


def test_a_full_layer_has_nothing_to_swap() -> None:
    net, _ = set_up()
    net.keep({"4.weight": torch.arange(100)})
    assert drop_counts(net, 0.301) == {"0.weight": 0, "4.weight": 30, "6.weight": 0}
    assert drop_counts(net, 0.301, math.ceil) == {"0.weight": 0, "4.weight": 31, "6.weight": 0}
    net.keep({"4.weight": torch.arange(1)})
    assert drop_counts(net, 0.5, math.ceil)["4.weight"] == 0  # no layer loses its last weight


def test_random_growth_draws_any_free_place_alike() -> None:
    net = Net(nn.Linear(20, 1, bias=False))
    support = torch.tensor([0, 1, 5, 6, 19])
    drawn = torch.zeros(20)
    for i in range(600):
        net.support_version = i
        grown = grow_random(net, {"weight": support}, {"weight": 5})["weight"]
        assert (
            len(grown) == 10
            and torch.isin(support, grown).all()
            and torch.equal(grown, grown.unique())
        )
        drawn[grown] += 1
    assert (drawn[support] == 600).all()
    drawn[support] = (
        200  # five of fifteen: a third of the time, here within four standard deviations
    )
    assert ((drawn - 200).abs() < 4 * math.sqrt(600 * 2 / 9)).all()
    assert torch.equal(
        grow_random(net, {"weight": support}, {"weight": 5}, "walk")["weight"],
        grow_random(net, {"weight": support}, {"weight": 5}, "walk")["weight"],
    )
    everything = grow_random(net, {"weight": support}, {"weight": 15})["weight"]
    assert torch.equal(everything, torch.arange(20))


# -- ITOP --------------------
def test_random_exploration_is_as_predicted() -> None:
    net = Net(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 500), nn.ReLU(), nn.Linear(500, 2)),
        include=["1.weight"],
    )
    train = Train(net, Blobs(), RECIPE)
    d, zeta = 0.1, 0.3
    ITOP(
        sparsity=1 - d,
        allocation=Uniform(),
        update_every=4,
        drop_fraction=zeta,
        min_drop_fraction=zeta,
        grow="random",
    ).run(net, train)
    p = zeta * d / (1 - d * (1 - zeta))
    predicted = 1 - (1 - d) * (1 - p) ** 9  # updates, in 40 steps
    assert train.exploration.explored() == pytest.approx(predicted, abs=0.01)
    assert train.exploration.explored() > 0.3


def test_what_was_explored_is_the_union_of_all_supports() -> None:
    net, train = set_up()
    union = {name: torch.zeros(w.size, dtype=torch.bool) for name, w in net.weights.items()}

    def see(t: int) -> None:
        for name, w in net.weights.items():
            union[name] |= w.trained()

    watch(train, see)
    ITOP(
        sparsity=0.8,
        allocation=ERK(power=1.0),
        update_every=5,
        drop_fraction=0.5,
        min_drop_fraction=0.005,
        grow="gradient",
    ).run(net, train)
    assert train.exploration.explored() == sum(int(seen.sum()) for seen in union.values()) / TOTAL


def test_itop_keeps_value_and_momentum_of_a_weight_that_is_dropped_and_drawn_again() -> None:
    net, train = set_up()
    keep, again = net.keep, 0

    def kept(supports: Supports) -> None:
        nonlocal again
        before, momentum = (
            full(net),
            {n: w.scatter(buffer(net, n)) for n, w in net.weights.items() if net.has_trained},
        )
        trained = {name: w.trained() for name, w in net.weights.items()}
        keep(supports)
        for name, w in net.weights.items() if net.has_trained else ():
            stays = w.trained() & trained[name]
            assert torch.equal(w.dense(), torch.where(stays, before[name].view(-1), 0.0))
            assert torch.equal(
                w.scatter(buffer(net, name)), torch.where(stays, momentum[name], 0.0)
            )
            again += int(stays.sum()) * (w.support is not None)

    net.keep = kept  # type: ignore[method-assign, assignment]
    ITOP(
        sparsity=0.2,
        allocation=Uniform(),
        update_every=20,
        drop_fraction=1.0,
        min_drop_fraction=1.0,
        grow="random",
    ).run(net, train)  # drops nearly all of them
    assert again > 300


def buffer(net: Net, name: str) -> Tensor:
    return net.optimizer_state.of(net.weights[name].psi)["momentum_buffer"]


# -- SNFS --------------------
def test_snfs_momentum_is_dense_and_that_of_sgd() -> None:
    net, train = set_up(steps=3)
    seen: list[dict[str, Tensor]] = []
    steps = train.steps

    def watched(**how: object):  # type: ignore[no-untyped-def]
        for t in steps(**how):  # type: ignore[arg-type]
            seen.append({name: grad.clone() for name, grad in net.grads().items()})
            yield t

    train.steps = watched  # type: ignore[method-assign]
    SNFS(
        sparsity=0.8,
        allocation=Uniform(),
        update_every=2,
        drop_fraction=0.5,
        min_drop_fraction=0.005,
        momentum=0.9,
    ).run(net, train)
    for name in net.weights:
        expected = ((seen[0][name] * 0.9) + seen[1][name]) * 0.9 + seen[2][name]
        assert torch.equal(net.method_state[f"momentum/{name}"], expected)
    assert expected.view(-1)[~net.weights[name].trained()].any()


def test_snfs_newcomers_start_with_the_momentum_that_chose_them() -> None:
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
    SNFS(
        sparsity=0.8,
        allocation=Uniform(),
        update_every=8,
        drop_fraction=0.5,
        min_drop_fraction=0.5,
        momentum=0.9,
    ).run(net, train)
    assert joined > 20


def test_snfs_newcomers_train_at_once_where_their_layer_becomes_full() -> None:
    net, train = set_up()
    method, (full, *others) = (
        SNFS(
            sparsity=0.2,
            allocation=Uniform(),
            update_every=2,
            drop_fraction=0.5,
            min_drop_fraction=0.5,
            momentum=0.9,
        ),
        net.weights,
    )
    method.keep_random(net)
    for _ in train.steps(0, 1, dense_grad=lambda t: True):
        gradient = net.grads()[full].clone().view(-1)
        net.method_state |= {
            f"momentum/{name}": torch.zeros_like(net.grads()[name]) for name in others
        }
        net.method_state[f"momentum/{full}"] = torch.ones_like(net.grads()[full])
        method.rewire(net, 0.5)
        assert net.weights[full].support is None
        assert torch.equal(net.weights[full].psi.grad, gradient)
        assert torch.equal(net.grads()[full].view(-1), gradient)


def test_a_momentum_that_is_not_a_number_is_said() -> None:
    net, train = set_up()
    method = SNFS(
        sparsity=0.8,
        allocation=Uniform(),
        update_every=2,
        drop_fraction=0.5,
        min_drop_fraction=0.5,
        momentum=0.9,
    )
    method.keep_random(net)
    for _ in train.steps(0, 1, dense_grad=lambda t: True):
        net.method_state |= {
            f"momentum/{name}": torch.full_like(grad, torch.nan)
            for name, grad in net.grads().items()
        }
        with pytest.raises(UserError, match=r"training has diverged. Try a smaller recipe\.lr"):
            method.rewire(net, 0.5)


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


def test_what_does_not_fit_into_a_layer_goes_to_the_others() -> None:
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


# -- DSR --------------------
@pytest.mark.parametrize("threshold, end", [(1e6, 1e6 / 2**4), (1e-9, 1e-9 * 2**4)])
def test_dsr_threshold_halves_after_too_much_and_doubles_after_too_little(
    threshold: float, end: float
) -> None:
    net, train = set_up(lr=1e-6)
    counts: list[dict[str, int]] = []
    watch(train, lambda t: counts.append(dims(net)))
    DSR(
        sparsity=0.8,
        allocation=Uniform(),
        update_every=8,
        double_period_at=(),
        update_until=0.95,
        drop_fraction=0.1,
        initial_threshold=threshold,
    ).run(net, train)  # at 8, 16, 24, 32
    assert net.reported == {"threshold": end}
    assert all(sum(each.values()) == LEFT and min(each.values()) >= 1 for each in counts)


def test_dsr_threshold_stays_on_target() -> None:
    net, _ = set_up()
    net.keep(topk(random_scores(net), Uniform()(net, 0.2)))  # DSR's first support
    share = sum(below(net, 0.05).values()) / LEFT
    net, train = set_up(lr=1e-6, steps=9)
    DSR(
        sparsity=0.8,
        allocation=Uniform(),
        update_every=8,
        double_period_at=(),
        update_until=0.95,
        drop_fraction=share,
        initial_threshold=0.05,
    ).run(net, train)
    assert 0.1 < share < 0.9 and net.reported == {"threshold": 0.05}


def test_dsr_never_empties_a_layer() -> None:
    net = line(0.1, -0.2, 0.3)
    assert below(net, 0.25) == {"weight": 2} == below(net, 99.0) and below(net, 0.1) == {
        "weight": 0
    }


# -- MEST --------------------
def test_mest_bounds_are_those_of_the_paper() -> None:
    hard, soft = (
        MEST(
            sparsity=0.9,
            allocation=ERK(power=1.0),
            update_every=40,
            drop_fractions=(0.2, 0.1),
            stage_ends=(0.5625, 0.75),
            soft_memory_bound=False,
            gradient_weight=0.01,
        ),
        MEST(
            sparsity=0.9,
            allocation=ERK(power=1.0),
            update_every=40,
            drop_fractions=(0.5, 0.25),
            stage_ends=(0.5625, 0.75),
            soft_memory_bound=True,
            gradient_weight=0.01,
        ),
    )
    epochs = (0, 89, 90, 119, 120, 159)
    assert [[round(1 - 0.1 * f, 4) for f in hard.bounds(e / 160)] for e in epochs] == [
        [0.92, 0.9],
        [0.92, 0.9],
        [0.91, 0.9],
        [0.91, 0.9],
        [0.9, 0.9],
        [0.9, 0.9],
    ]
    assert [[round(1 - 0.1 * f, 4) for f in soft.bounds(e / 160)] for e in epochs] == [
        [0.9, 0.85],
        [0.9, 0.85],
        [0.9, 0.875],
        [0.9, 0.875],
        [0.9, 0.9],
        [0.9, 0.9],
    ]


def test_mest_with_the_soft_bound_trains_more_until_the_last_moment() -> None:
    net, train = set_up()
    counts: list[int] = []
    watch(train, lambda t: counts.append(net.dim))
    # stages end at steps 14 and 28
    MEST(
        sparsity=0.8,
        allocation=Global(),
        update_every=16,
        drop_fractions=(0.5, 0.25),
        stage_ends=(0.35, 0.7),
        soft_memory_bound=True,
        gradient_weight=0.1,
    ).run(net, train)
    assert counts[:16] == [counts[0]] * 16 and abs(counts[0] - 1.5 * LEFT) <= 3
    assert (
        counts[16:28] == [counts[16]] * 12 and abs(counts[16] - 1.25 * LEFT) <= 3
    )  # the next update was at 16
    assert counts[28:] == [LEFT] * 12 and net.dim == LEFT


def test_mest_scores_size_and_gradient() -> None:
    net = line(0.5, -0.2, 0.1)
    net.keep({"weight": torch.tensor([0, 1])})
    w = net.weights["weight"]
    w.psi.grad = torch.tensor([0.0, -10.0])
    scores = MEST(
        sparsity=0.5,
        allocation=ERK(power=1.0),
        update_every=5,
        drop_fractions=(0.2,),
        stage_ends=(0.5,),
        soft_memory_bound=False,
        gradient_weight=0.1,
    ).scores(net)
    assert torch.allclose(scores["weight"], torch.tensor([0.5, 1.2, 0.0]))


# -- GraNet --------------------
def test_granet_without_regrowth_is_gmp() -> None:
    gmp, train = set_up()
    GMP(sparsity=0.9, allocation=Global(), prune_from=0.0, prune_until=0.5, update_every=4).run(
        gmp, train
    )
    net, train = set_up()
    GraNet(
        sparsity=0.9,
        allocation=ERK(power=1.0),
        initial_sparsity=0.0,
        prune_until=0.5,
        update_every=4,
        drop_fraction=0.0,
        min_drop_fraction=0.0,
    ).run(net, train)
    assert same(net, gmp) and net.dim == round(0.1 * TOTAL)


def test_granet_that_starts_at_the_final_sparsity_is_itop() -> None:
    itop, train = set_up()
    ITOP(
        sparsity=0.8,
        allocation=ERK(power=1.0),
        update_every=5,
        drop_fraction=0.5,
        min_drop_fraction=0.005,
        grow="gradient",
    ).run(itop, train)
    net, train = set_up()
    GraNet(
        sparsity=0.8,
        allocation=ERK(power=1.0),
        initial_sparsity=0.8,
        prune_until=0.5,
        update_every=5,
        drop_fraction=0.5,
        min_drop_fraction=0.005,
    ).run(net, train)
    assert dims(net) == dims(itop) and same(net, itop)


def test_granet_density_follows_the_cubic_whatever_is_regrown() -> None:
    net, train = set_up()
    counts: list[int] = []
    watch(train, lambda t: counts.append(net.dim))
    GraNet(
        sparsity=0.9,
        allocation=ERK(power=1.0),
        initial_sparsity=0.5,
        prune_until=0.5,
        update_every=4,
        drop_fraction=0.5,
        min_drop_fraction=0.005,
    ).run(net, train)
    for t in range(40):
        s = 0.9 - 0.4 * (1 - min(t // 4 * 4, 20) / 20) ** 3
        assert counts[t] == round((1 - s) * TOTAL)


# -- DeepR --------------------
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


def test_deepr_a_weight_at_zero_feels_its_gradient_and_one_of_the_wrong_sign_none() -> None:
    theta = torch.tensor([0.0, 2.0, -1.0, -3.0], requires_grad=True)
    used = Signed(torch.tensor([1.0, 1.0, 1.0, -1.0]))(theta)
    used.sum().backward()
    assert torch.equal(used, torch.tensor([0.0, 2.0, 0.0, -3.0])) and theta.grad.tolist() == [
        1.0,
        1.0,
        0.0,
        1.0,
    ]


# -- Top-KAST --------------------
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


def test_topkast_trains_the_next_largest_too_and_holds_the_rest() -> None:
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
    TopKAST(sparsity=0.9, allocation=Uniform(), exploration=1.0, update_every=8, penalty=1e-3).run(
        net, train
    )
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


def test_topkast_penalty_weighs_what_is_explored_by_one_over_the_density() -> None:
    net = line(4.0, 3.0, 2.0, 1.0)
    maps = {"weight": Explored(net.weights["weight"].param, 0.5)}
    TopKAST(
        sparsity=0.75, allocation=Uniform(), exploration=1.0, update_every=1, penalty=0.5
    ).choose(net, maps)
    theta = net.dense_weights()["weight"].clone().requires_grad_()
    assert maps["weight"].penalty(theta) == 0.5 * (16.0 + 4 * 9.0)
    used = maps["weight"](theta)
    assert used.tolist() == [[4.0, 0.0, 0.0, 0.0]]
    used.sum().backward()
    assert theta.grad.tolist() == [[1.0, 1.0, 1.0, 1.0]]


def test_weights_held_by_keep_stay_where_they_are() -> None:
    net = line(4.0, 3.0, 2.0, 1.0)
    net.keep({"weight": torch.tensor([0, 1])}, base="held")
    with torch.no_grad():
        net.weights["weight"].psi.mul_(10)
    net.keep({"weight": torch.tensor([1, 3])}, base="held")
    assert net.dense_weights()["weight"].tolist() == [[40.0, 30.0, 2.0, 1.0]]
    assert net.weights["weight"].psi.tolist() == [30.0, 1.0]


# -- SRigL --------------------
@pytest.mark.parametrize("ablation", [0.0, 0.5])
def test_srigl_every_neuron_that_lives_has_as_many_inputs(ablation: float) -> None:
    net, train = set_up()
    ablated = changes = 0
    support = None

    def see(t: int) -> None:
        nonlocal ablated, changes, support
        for name, w in net.weights.items():
            inputs = w.trained().view(w.param.shape[0], -1).sum(1)
            alive = inputs[inputs > 0]
            assert len(alive.unique()) == 1
            assert 0 <= ERK(power=1.0)(net, 0.2)[name] - int(inputs.sum()) < len(alive)  # type: ignore[index]
            ablated += int((inputs == 0).sum()) if name == "4.weight" else 0
            assert name != "6.weight" or (inputs > 0).all()
        now = net.weights["4.weight"].support
        changes += support is not None and not torch.equal(now, support)
        support = now

    watch(train, see)
    SRigL(
        sparsity=0.8,
        allocation=ERK(power=1.0),
        update_every=5,
        drop_fraction=0.5,
        update_until=0.75,
        min_salient_fraction=ablation,
    ).run(net, train)
    assert changes > 2 and (ablated > 0) == (ablation > 0)


def test_srigl_keeps_the_largest_grows_by_gradient_and_ablates_idle_neurons() -> None:
    net = Net(nn.Linear(4, 3, bias=False))
    w = net.weights["weight"]
    with torch.no_grad():
        w.psi.copy_(torch.tensor([9.0, 8.0, 0.0, 0.0, 7.0, 6.0, 0.0, 0.0, 0.1, 0.2, 0.0, 0.0]))
    net.keep({"weight": torch.tensor([0, 1, 4, 5, 8, 9])})
    gradient = torch.tensor([[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 4.0, 3.0], [0.0, 0.0, 0.2, 0.1]])
    size = magnitude(net)["weight"]
    keep_all = SRigL(
        sparsity=0.5,
        allocation=Uniform(),
        update_every=1,
        drop_fraction=0.34,
        update_until=1.0,
        min_salient_fraction=0.0,
    ).rewired(size, gradient, w, 0.34, 6, 0.0)
    assert keep_all.tolist() == [
        0,
        1,
        4,
        5,
        10,
        11,
    ]  # two are dropped, both of the last neuron, which grows two
    gone = SRigL(
        sparsity=0.5,
        allocation=Uniform(),
        update_every=1,
        drop_fraction=0.34,
        update_until=1.0,
        min_salient_fraction=0.5,
    ).rewired(size, gradient, w, 0.34, 6, 0.5)
    assert gone.tolist() == [0, 1, 3, 4, 5, 6]  # without it, three inputs for each of the others


def test_srigl_ablation_compares_with_the_fan_in_that_all_neurons_would_have() -> None:
    """9 weights for 4 neurons are k_0 = 2 each; where one is gone, 3. Of gamma = 0.7 that is one
    weight, not two."""
    net = Net(nn.Linear(6, 4, bias=False))
    w = net.weights["weight"]
    with torch.no_grad():
        w.psi.zero_()
        w.psi[torch.tensor([0, 1, 2, 6, 7, 8, 12, 13, 14])] = torch.tensor(
            [9.0, 8, 7, 6, 5, 4, 3, 0.1, 0.2]
        )
    net.keep({"weight": torch.tensor([0, 1, 2, 6, 7, 8, 12, 13, 14])})
    gradient = torch.zeros(4, 6)
    gradient[0, 3:5], gradient[1, 3], gradient[2] = (
        9.0,
        5.0,
        torch.tensor([0.0, 0.3, 0.1, 0.2, 0.4, 0.5]),
    )
    new = SRigL(
        sparsity=0.625,
        allocation=Uniform(),
        update_every=1,
        drop_fraction=0.25,
        update_until=1.0,
        min_salient_fraction=0.7,
    ).rewired(magnitude(net)["weight"], gradient, w, 0.25, 9, 0.7)
    # two are dropped; 12 is the only salient weight of its neuron, which lives and grows by its
    # largest gradients
    assert new.tolist() == [0, 1, 2, 6, 7, 8, 12, 16, 17]


def test_the_best_of_every_row_are_the_first_among_equals() -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    assert best_of_rows(scores, 2).tolist() == [
        [False, True, True, False],
        [True, True, False, False],
    ]


# -- N:M --------------------
def test_nm_keeps_exactly_the_n_largest_of_every_m_channels_first() -> None:
    theta = torch.arange(2 * 4 * 3 * 3, dtype=torch.float32).view(2, 4, 3, 3)
    kept = LargestOf(2, 4, 0.0).kept(theta)
    assert torch.equal(
        kept, (torch.arange(4) >= 2).view(1, 4, 1, 1).expand(2, 4, 3, 3)
    )  # of each place's channels
    tied = LargestOf(2, 4, 0.0).kept(torch.tensor([[1.0, -1.0, 1.0, 0.5, 0.0, 0.0, 0.0, -2.0]]))
    assert tied.tolist() == [[True, True, False, False, True, False, False, True]]
    for n, m in ((1, 4), (2, 4), (4, 8), (4, 4)):
        theta = torch.randn(6, 16, 3, 3)
        groups = LargestOf(n, m, 0.0)(theta).permute(0, 2, 3, 1).reshape(-1, m)
        sizes = theta.permute(0, 2, 3, 1).reshape(-1, m).abs()
        assert ((groups != 0).sum(1) == n).all()
        assert torch.equal(
            groups.abs().sort(1).values[:, m - n :], sizes.sort(1).values[:, m - n :]
        )


def test_nm_what_is_not_used_learns_and_decays() -> None:
    theta = torch.tensor([[4.0, 1.0, -3.0, 2.0]], requires_grad=True)
    each, g = LargestOf(2, 4, 0.5), torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    ((each(theta) * g).sum() + each.penalty(theta)).backward()
    assert theta.grad.tolist() == [[1.0, 2.0 + 0.5 * 1.0, 3.0, 4.0 + 0.5 * 2.0]]


def test_nm_ends_in_a_plain_sparse_network_and_leaves_layers_that_do_not_fit_dense(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net, train = set_up()
    with caplog.at_level(logging.WARNING, "dimred"):
        NM(n=2, m=4, penalty=2e-4).run(net, train)
    assert "the number of inputs is not a multiple of 4: 0.weight" in caplog.text  # 9 inputs
    assert not net.transforms and dims(net) == {"0.weight": 36, "4.weight": 384, "6.weight": 12}
    with pytest.raises(
        UserError, match="needs a layer with a number of inputs that is a multiple of"
    ):
        NM(n=2, m=7, penalty=2e-4).run(*set_up())


def test_nm_with_all_of_every_group_is_dense_training() -> None:
    dense, train = set_up()
    Dense().run(dense, train)
    net, train = set_up()
    NM(n=4, m=4, penalty=2e-4).run(net, train)
    assert same(net, dense)


# -- state of a method --------------------
def test_method_state_and_reported_numbers_travel_with_the_net() -> None:
    net, _ = set_up()
    net.method_state = {"seen/4.weight": torch.ones(768, dtype=torch.bool)}
    net.reported = {"H": 0.5, "removed": 3}
    other, _ = set_up()
    other.load(net.state())
    twin = copy.deepcopy(net)
    net.reported["H"] += 1
    net.method_state["seen/4.weight"].zero_()
    for each in (other, twin):
        assert each.reported == {"H": 0.5, "removed": 3}
        assert each.method_state["seen/4.weight"].all()
    assert net.reported == {"H": 1.5, "removed": 3}


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: RigL(
                sparsity=0.5,
                allocation=ERK(power=1.0),
                update_every=0,
                drop_fraction=0.3,
                update_until=0.75,
            ),
            "method.update_every=0",
        ),
        (
            lambda: ITOP(
                sparsity=0.5,
                allocation=ERK(power=1.0),
                update_every=10,
                drop_fraction=0.3,
                min_drop_fraction=1.5,
                grow="random",
            ),
            "method.min_drop_fraction=1.5",
        ),
        (
            lambda: SNFS(
                sparsity=0.5,
                allocation=ERK(power=1.0),
                update_every=10,
                drop_fraction=0.5,
                min_drop_fraction=0.0,
                momentum=1.0,
            ),
            "method.momentum=1.0",
        ),
        (
            lambda: DSR(
                sparsity=0.5,
                allocation=ERK(power=1.0),
                update_every=10,
                double_period_at=(2.0,),
                update_until=0.9,
                drop_fraction=0.1,
                initial_threshold=1e-3,
            ),
            "method.double_period_at",
        ),
        (
            lambda: DSR(
                sparsity=0.5,
                allocation=ERK(power=1.0),
                update_every=10,
                double_period_at=(),
                update_until=0.9,
                drop_fraction=0.1,
                initial_threshold=0.0,
            ),
            "method.initial_threshold=0.0",
        ),
        (
            lambda: MEST(
                sparsity=0.5,
                allocation=ERK(power=1.0),
                update_every=5,
                drop_fractions=(0.2,),
                stage_ends=(0.5, 0.7),
                soft_memory_bound=False,
                gradient_weight=0.0,
            ),
            "as many of one as of the other",
        ),
        (
            lambda: MEST(
                sparsity=0.5,
                allocation=ERK(power=1.0),
                update_every=5,
                drop_fractions=(0.2, 0.1),
                stage_ends=(0.7, 0.5),
                soft_memory_bound=False,
                gradient_weight=0.0,
            ),
            "rising fractions",
        ),
        (
            lambda: GraNet(
                sparsity=0.5,
                allocation=ERK(power=1.0),
                initial_sparsity=1.0,
                prune_until=0.5,
                update_every=10,
                drop_fraction=0.5,
                min_drop_fraction=0.0,
            ),
            "method.initial_sparsity=1.0",
        ),
        (
            lambda: DeepR(sparsity=0.5, allocation=ERK(power=1.0), l1=-1.0, noise=0.0),
            "method.l1=-1.0",
        ),
        (
            lambda: TopKAST(
                sparsity=0.5,
                allocation=ERK(power=1.0),
                exploration=-1.0,
                update_every=10,
                penalty=0.0,
            ),
            "method.exploration=-1.0",
        ),
        (
            lambda: SRigL(
                sparsity=0.5,
                allocation=ERK(power=1.0),
                update_every=10,
                drop_fraction=0.3,
                update_until=0.75,
                min_salient_fraction=2.0,
            ),
            "method.min_salient_fraction=2.0",
        ),
        (lambda: NM(n=5, m=4, penalty=0.0), "0 < n <= m"),
    ],
)
def test_values_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        make()
