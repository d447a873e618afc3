"""Dynamic sparse training: what holds for every method; SET, RigL and ITOP."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from dynamic import ACROSS, GROWING, IN_LAYERS, LEFT, TOTAL, buffer, dims, full, label, same
from torch import Tensor, nn
from toy import RECIPE, Blobs, set_up, watch

from dimred.errors import UserError
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
from dimred.methods.nm_sparsity import NM
from dimred.methods.reference_networks import Dense
from dimred.net import Net
from dimred.net.coordinates import Supports
from dimred.select.allocations import ERK, Uniform
from dimred.select.rewiring import drop_counts, grow_random
from dimred.select.schedules import cosine
from dimred.training.loop import Train


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
def test_new_weights_start_at_zero_without_momentum(method: SET, optimizer: str) -> None:
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
        TopKAST(sparsity=0.8, update_every=5, penalty=1e-2),
        SRigL(sparsity=0.8, update_every=5),
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


def test_rigl_that_grows_by_magnitude_changes_nothing() -> None:
    net, train = set_up()
    net.grads = net.dense_weights  # type: ignore[method-assign]
    seen: list[dict[str, Tensor]] = []
    watch(train, lambda t: seen.append({name: w.support for name, w in net.weights.items()}))
    RigL(sparsity=0.8, allocation=Uniform(), update_every=4).run(net, train)
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
    RigL(sparsity=0.8, update_every=5).run(net, train)
    assert updates == 5 and returned > 0


def test_a_full_layer_drops_and_grows_nothing() -> None:
    net, _ = set_up()
    net.keep({"4.weight": torch.arange(100)})
    assert drop_counts(net, 0.301) == {"0.weight": 0, "4.weight": 30, "6.weight": 0}
    assert drop_counts(net, 0.301, math.ceil) == {"0.weight": 0, "4.weight": 31, "6.weight": 0}
    net.keep({"4.weight": torch.arange(1)})
    assert drop_counts(net, 0.5, math.ceil)["4.weight"] == 0  # no layer loses its last weight


def test_random_growth_draws_free_positions_uniformly() -> None:
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
    ).run(net, train)
    p = zeta * d / (1 - d * (1 - zeta))
    predicted = 1 - (1 - d) * (1 - p) ** 9  # updates, in 40 steps
    assert train.exploration.explored() == pytest.approx(predicted, abs=0.01)
    assert train.exploration.explored() > 0.3


def test_explored_weights_are_the_union_of_all_supports() -> None:
    net, train = set_up()
    union = {name: torch.zeros(w.size, dtype=torch.bool) for name, w in net.weights.items()}

    def see(t: int) -> None:
        for name, w in net.weights.items():
            union[name] |= w.trained()

    watch(train, see)
    ITOP(sparsity=0.8, update_every=5, grow="gradient").run(net, train)
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
    ).run(net, train)  # drops nearly all of them
    assert again > 300


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
        (lambda: RigL(sparsity=0.5, update_every=0), "method.update_every=0"),
        (
            lambda: ITOP(sparsity=0.5, update_every=10, drop_fraction=0.3, min_drop_fraction=1.5),
            "method.min_drop_fraction=1.5",
        ),
        (
            lambda: SNFS(
                sparsity=0.5,
                allocation=ERK(power=1.0),
                update_every=10,
                min_drop_fraction=0.0,
                momentum=1.0,
            ),
            "method.momentum=1.0",
        ),
        (
            lambda: DSR(sparsity=0.5, update_every=10, double_period_at=(2.0,), update_until=0.9),
            "method.double_period_at",
        ),
        (
            lambda: DSR(
                sparsity=0.5,
                update_every=10,
                double_period_at=(),
                update_until=0.9,
                initial_threshold=0.0,
            ),
            "method.initial_threshold=0.0",
        ),
        (
            lambda: MEST(
                sparsity=0.5,
                update_every=5,
                drop_fractions=(0.2,),
                stage_ends=(0.5, 0.7),
                gradient_weight=0.0,
            ),
            "as many of one as of the other",
        ),
        (
            lambda: MEST(sparsity=0.5, update_every=5, stage_ends=(0.7, 0.5), gradient_weight=0.0),
            "rising fractions",
        ),
        (
            lambda: GraNet(
                sparsity=0.5,
                initial_sparsity=1.0,
                prune_until=0.5,
                update_every=10,
                min_drop_fraction=0.0,
            ),
            "method.initial_sparsity=1.0",
        ),
        (lambda: DeepR(sparsity=0.5, l1=-1.0, noise=0.0), "method.l1=-1.0"),
        (
            lambda: TopKAST(sparsity=0.5, exploration=-1.0, update_every=10, penalty=0.0),
            "method.exploration=-1.0",
        ),
        (
            lambda: SRigL(sparsity=0.5, update_every=10, min_salient_fraction=2.0),
            "method.min_salient_fraction=2.0",
        ),
        (lambda: NM(n=5, penalty=0.0), "0 < n <= m"),
    ],
)
def test_values_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        make()
