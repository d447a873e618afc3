"""Freezing: which weights train, which keep their bits, how weights fade, and that frozen ones are
not computed."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from freeze import residual, same, trained
from torch import Tensor, nn
from toy import RECIPE, Blobs, Crash, Fragile, model, set_up, watch

from dimred.errors import UserError
from dimred.methods.freezing.by_score import DropBack, FreezeNetValues, FreezeNetWD
from dimred.methods.freezing.layers import ELM, LastLayer, NormOnly, PartialFilters, moments
from dimred.methods.freezing.progressive import AutoFreeze, FreezeOut
from dimred.methods.pruning_at_init.single_shot import SNIP, FreezeNet
from dimred.methods.reference_networks import Dense
from dimred.net import Net
from dimred.scores import NAMED, gradients
from dimred.select.allocations import Global
from dimred.storage.folder import RunFolder
from dimred.training.loop import Train
from dimred.training.recipe import Recipe


# -- layers and parts of them --------------------------------------------------------------------
def test_last_layer_trains_one_layer_with_its_bias() -> None:
    net, train = set_up()
    LastLayer().run(net, train)
    assert trained(net) == 12 * 2 + 2
    for name, parameter in net.model.named_parameters():
        assert torch.equal(parameter, net.initial()[name]) == (not name.startswith("6."))


def test_norm_only_trains_gamma_and_beta_from_gamma_uniform() -> None:
    net, train = set_up(steps=1, lr=1e-12)
    NormOnly(gamma_init="uniform", train_output_layer=False, also_train=()).run(net, train)
    assert trained(net) == 2 * 4 and net.dim == 0
    gamma = net.model[1].weight
    assert gamma.min() >= 0 and gamma.max() <= 1 and gamma.std() > 0.05
    net, train = set_up()
    NormOnly(gamma_init="uniform", train_output_layer=False, also_train=()).run(net, train)
    for name, parameter in net.model.named_parameters():
        assert torch.equal(parameter, net.initial()[name]) == (not name.startswith("1."))


def test_norm_only_may_start_from_the_models_own_gamma() -> None:
    net, train = set_up(steps=1, lr=1e-12)
    NormOnly(gamma_init="init", train_output_layer=False, also_train=()).run(net, train)
    assert torch.allclose(net.model[1].weight, torch.ones(4))


def test_norm_only_may_train_the_output_and_shortcuts() -> None:
    for output, also, more in (
        (True, (), 2 * 4 + 2),
        (False, ("shortcut",), 4 + 4),
        (True, ("shortcut",), 18),
    ):
        net = residual()
        NormOnly(gamma_init="uniform", train_output_layer=output, also_train=also).run(
            net, Train(net, Blobs(), RECIPE)
        )
        assert trained(net) == 2 * 4 + more


def test_norm_only_refuses_a_model_without_norms() -> None:
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))
    with pytest.raises(
        UserError, match="norm_only trains normalisation layers, and Sequential has none"
    ):
        NormOnly(gamma_init="uniform", train_output_layer=False, also_train=()).run(
            net, Train(net, Blobs(), RECIPE)
        )


@pytest.mark.parametrize(
    "method",
    [
        NormOnly(gamma_init="uniform", train_output_layer=False, also_train=("shrotcut",)),
        PartialFilters(fraction=0.5, train_whole=("shrotcut",)),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error(method: Any) -> None:
    with pytest.raises(UserError, match="'shrotcut' matches no parameter"):
        method.run(residual(), None)


@pytest.mark.parametrize(
    "fraction, filters, neurons",
    [(0.0, 0, 0), (0.25, 1, 3), (0.3, 2, 4), (0.5, 2, 6), (1.0, 4, 12)],
)
def test_partial_filters_trains_the_first_filters_of_each_layer(
    fraction: float, filters: int, neurons: int
) -> None:
    net, train = set_up(steps=2)
    PartialFilters(fraction=fraction, train_whole=()).run(net, train)
    assert net.dim == filters * 9 + neurons * 64 + 12 * 2
    for name, count in (("0.weight", filters), ("4.weight", neurons)):
        change = (net.dense_weights()[name] != net.initial()[name]).flatten(1).any(1)
        assert change.tolist() == [i < count for i in range(len(change))]
    assert trained(net) - net.dim == 4 + 2 * 4 + 12 + 2  # biases and norms


def test_partial_filters_may_train_whole_layers_instead() -> None:
    net, train = set_up(steps=2)
    PartialFilters(fraction=0.0, train_whole=(r"^0\.",)).run(net, train)
    assert [w.dim for w in net.weights.values()] == [36, 0, 24]


def test_a_fraction_that_is_whole_in_decimals_is_not_rounded_up() -> None:
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, 2)))
    PartialFilters(fraction=0.7, train_whole=()).run(
        net, Train(net, Blobs(), RECIPE)
    )  # 0.7 * 10 = 7.000000000000001
    assert net.weights["1.weight"].dim == 7 * 16


# -- extreme learning machine --------------------------------------------------------------------
def solved(model: nn.Module, ridge: float) -> tuple[Net, Train]:
    net = Net(model.double())
    train = Train(net, Blobs(torch.float64), dataclasses.replace(RECIPE, weight_decay=0.1))
    ELM(ridge=ridge).run(net, train)
    return net, train


@pytest.mark.parametrize("bias", [True, False])
def test_the_residual_of_elm_is_orthogonal_to_the_features_except_for_the_ridge(
    bias: bool,
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2, bias=bias)
    )
    net, train = solved(model, 0.3)
    images, labels = next(train.data.eval_batches("train"))
    model.eval()
    with torch.no_grad():
        h, y = model[:3](images), F.one_hot(labels, 2).double()
        left = y - model(images)
    beta = model[3].weight.T
    if bias:
        h, beta = torch.cat((h, torch.ones(len(h), 1)), 1), torch.cat((beta, model[3].bias[None]))
    assert torch.allclose(h.T @ left, 0.3 * beta, atol=1e-9)
    assert net.dim == 32 and trained(net) == 32 + 2 * bias


def test_elm_sums_over_batches_whatever_their_size() -> None:
    net, train = set_up()
    whole = moments(net, train, net.model[6])
    batches = train.data.eval_batches

    def halves(split: str) -> Any:
        for images, labels in batches(split):
            yield images[:20], labels[:20]
            yield images[20:], labels[20:]

    train.data.eval_batches = halves  # type: ignore[method-assign, assignment]
    assert all(map(torch.allclose, whole, moments(net, train, net.model[6])))


def test_elm_trains_nothing_else_and_beats_chance() -> None:
    net, train = set_up()
    ELM(ridge=1.0).run(net, train)
    for name, parameter in net.model.named_parameters():
        assert torch.equal(parameter, net.initial()[name]) == (not name.startswith("6."))
    assert train.best.val_accuracy > 0.8 and net.model[1].running_mean.any()


def test_elm_needs_a_linear_last_layer() -> None:
    net = Net(nn.Sequential(nn.Conv2d(1, 2, 4), nn.Flatten()))
    with pytest.raises(UserError, match=r"is a Conv2d\. Choose method=last_layer"):
        ELM(ridge=1.0).run(net, Train(net, Blobs(), RECIPE))


# -- FreezeNet and what becomes of its frozen weights --------------------------------------------
def fading(remainder: float | None, **recipe: Any) -> tuple[Net, Train, list[dict[str, Tensor]]]:
    net, train = set_up(**recipe)
    seen: list[dict[str, Tensor]] = []
    watch(
        train,
        lambda t: seen.append(
            {name: value.clone() for name, value in net.effective_weights().items()}
        ),
    )
    FreezeNetWD(
        sparsity=0.8, allocation=Global(), score="snip", examples=32, final_fraction=remainder
    ).run(net, train)
    return net, train, seen


def test_the_first_gradients_of_freezenet_are_those_of_the_dense_net() -> None:
    net, train = set_up()
    batch = next(train.data.train_batches(RECIPE.batch_size, 3, 0))
    dense = gradients(net, batch)
    FreezeNet(sparsity=0.8, allocation=Global(), base="init", ablation="none", examples=32).prune(
        net, train
    )
    next(train.steps())
    assert all(
        torch.allclose(w.psi.grad, w.gather(dense[name].reshape(-1)), rtol=1e-5, atol=1e-8)
        for name, w in net.weights.items()
    )


@pytest.mark.parametrize("remainder", [1e-3, None])
def test_frozen_weights_fade_by_the_product_of_their_decays_and_end_pruned(
    remainder: float | None,
) -> None:
    net, train, seen = fading(
        remainder, schedule="step", milestones=(0.5,), weight_decay=0.2, optimizer="adam"
    )
    left = FreezeNetWD(
        sparsity=0.8, allocation=Global(), score="snip", examples=32, final_fraction=remainder
    ).left(train.recipe, 40)
    rates = [train.recipe.lr_at(t, 40) for t in range(40)]
    assert rates[0] == pytest.approx(10 * rates[-1])
    decay = 0.2 if remainder is None else (1 - float(left[0])) / rates[0]
    if remainder:
        assert float(left[-1]) == pytest.approx(remainder)
    for t in range(39):
        product = math.prod(1 - decay * rate for rate in rates[: t + 1])
        for name, w in net.weights.items():
            off = ~w.trained()
            expected = net.initial()[name].view(-1)[off] * product
            assert torch.allclose(seen[t][name].view(-1)[off], expected, rtol=1e-5, atol=0)
    for name, w in net.weights.items():
        assert not seen[-1][name].view(-1)[~w.trained()].any() and not w.dense()[~w.trained()].any()
        assert w.base == "zero"
    assert (
        net.dim == 166 and not net.transforms and train.best.step == 40
    )  # earlier evaluations were of a dense net


def test_weights_that_fade_are_those_of_freezenet() -> None:
    net, train = set_up()
    FreezeNet(sparsity=0.8, allocation=Global(), base="init", ablation="none", examples=32).run(
        net, train
    )
    faded, *_ = fading(1e-3)
    assert all(
        torch.equal(w.support, faded.weights[name].support) for name, w in net.weights.items()
    )


def test_weights_that_fade_stay_the_same_if_a_resumed_run_scores_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it may on a GPU, where two gradients of the same batch are not the same to the bit."""

    def attempt(last: int) -> Net:
        net = Net(model(), seed=1)
        with RunFolder(tmp_path) as folder:
            train = Train(net, Blobs(), RECIPE, folder=folder, observers=[Fragile(last)])
            FreezeNetWD(
                sparsity=0.8, allocation=Global(), score="snip", examples=32, final_fraction=1e-3
            ).run(net, train)
        return net

    with pytest.raises(Crash):
        attempt(20)
    first = Net(model(), seed=1)
    FreezeNetWD(
        sparsity=0.8, allocation=Global(), score="snip", examples=32, final_fraction=1e-3
    ).run(first, Train(first, Blobs(), RECIPE))
    monkeypatch.setitem(NAMED, "snip", NAMED["random"])
    resumed = attempt(-1)
    assert all(
        torch.equal(w.support, first.weights[name].support) for name, w in resumed.weights.items()
    )
    assert all(w.psi.all() for w in resumed.weights.values())


def test_weights_that_do_not_fade_are_frozen_until_they_are_pruned() -> None:
    net, train = set_up()
    seen: list[Tensor] = []
    watch(train, lambda t: seen.append(net.dense_weights()["4.weight"].clone()))
    FreezeNet(sparsity=0.8, allocation=Global(), base="init", ablation="none", examples=32).run(
        net, train
    )
    *_, faded = fading(1.0)
    assert all(torch.equal(seen[t], faded[t]["4.weight"]) for t in range(38))


@pytest.mark.parametrize(
    "values", ["gaussian", "uniform", "signed_constant", "shuffled", "init", "zero"]
)
def test_values_of_frozen_weights_have_the_layers_sigma_and_stay(values: Any) -> None:
    net, train = set_up()
    FreezeNetValues(
        sparsity=0.8, allocation=Global(), score="snip", examples=32, frozen_values=values
    ).run(net, train)
    for name, w in net.weights.items():
        if w.size < 500:
            continue
        first, off = net.initial()[name].view(-1), ~w.trained()
        theta, sigma = w.dense()[off], first.square().mean().sqrt()
        if values in ("init", "zero"):
            assert torch.equal(theta, first[off] * (values == "init"))
            continue
        assert torch.allclose(theta.square().mean().sqrt(), sigma, rtol=0.1) and not torch.equal(
            theta, first[off]
        )
        assert theta.abs().mean() / sigma == pytest.approx(
            {"gaussian": math.sqrt(2 / math.pi), "signed_constant": 1}.get(
                values, math.sqrt(3) / 2
            ),
            rel=0.1,
        )
        assert values != "uniform" or theta.abs().max() <= sigma * math.sqrt(3) * 1.0001
        assert values != "shuffled" or torch.isin(theta, first).all()


def test_initial_values_make_freezenet_and_zeros_make_snip() -> None:
    cases: dict[Any, SNIP] = {
        "init": FreezeNet(
            sparsity=0.8, allocation=Global(), base="init", ablation="none", examples=32
        ),
        "zero": SNIP(sparsity=0.8, allocation=Global(), base="zero", ablation="none", examples=32),
    }
    for values, method in cases.items():
        net, train = set_up()
        FreezeNetValues(
            sparsity=0.8, allocation=Global(), score="snip", examples=32, frozen_values=values
        ).run(net, train)
        other, train = set_up()
        method.run(other, train)
        assert same(net, other)


# -- DropBack ------------------------------------------------------------------------------------
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_dropback_resets_untracked_weights_in_every_step(optimizer: str) -> None:
    net, train = set_up(optimizer=optimizer)
    first = net.initial()
    supports: list[Tensor] = []

    def see(t: int) -> None:
        assert net.dim == 166
        for name, w in net.weights.items():
            off = ~w.trained()
            assert torch.equal(w.dense()[off], first[name].view(-1)[off])
        supports.append(torch.cat([w.trained() for w in net.weights.values()]))

    watch(train, see)
    DropBack(sparsity=0.8, allocation=Global(), update_every=1, update_until=0.5).run(net, train)
    changes = [not torch.equal(a, b) for a, b in itertools.pairwise(supports)]
    assert any(changes[:19]) and not any(
        changes[19:]
    )  # steps 1 to 19 may choose, 20 and later do not


def test_dropback_without_momentum_and_decay_is_the_rule_of_the_official_code() -> None:
    """Train all, then reset all but the k weights that are farthest from where they began."""
    net, train = set_up(momentum=0.0, weight_decay=0.0)
    DropBack(sparsity=0.8, allocation=Global(), update_every=1, update_until=1.0).run(net, train)
    plain, train = set_up(momentum=0.0, weight_decay=0.0)

    def reset(t: int) -> None:
        with torch.no_grad():
            far = torch.cat(
                [(w.psi - plain.initial()[n].view(-1)).abs() for n, w in plain.weights.items()]
            )
            least = far.sort(descending=True).values[165]
            for name, w in plain.weights.items():
                first = plain.initial()[name].view(-1)
                w.psi.copy_(torch.where((w.psi - first).abs() >= least, w.psi, first))

    watch(train, reset)
    Dense().run(plain, train)
    assert all(
        torch.allclose(theta, plain.dense_weights()[name], atol=1e-6)
        for name, theta in net.dense_weights().items()
    )


def test_dropback_of_nothing_is_dense_training() -> None:
    net, train = set_up()
    DropBack(sparsity=0.0, allocation=Global(), update_every=1, update_until=0.5).run(net, train)
    dense, train = set_up()
    Dense().run(dense, train)
    assert same(net, dense)


# -- ranges --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "make",
    [
        lambda: ELM(ridge=0.0),
        lambda: PartialFilters(fraction=1.5, train_whole=()),
        lambda: FreezeNetWD(
            sparsity=0.9, allocation=Global(), score="snip", examples=32, final_fraction=0.0
        ),
        lambda: DropBack(sparsity=0.9, allocation=Global(), update_every=0, update_until=0.5),
        lambda: DropBack(sparsity=0.9, allocation=Global(), update_every=1, update_until=0.0),
        lambda: FreezeOut(t_0=0.0, cubic=True, scale_lr=True),
        lambda: AutoFreeze(intervals=0, percentile=50.0),
        lambda: AutoFreeze(intervals=10, percentile=101.0),
    ],
)
def test_values_out_of_range_are_errors(make: Callable[[], Any]) -> None:
    with pytest.raises(UserError, match=r"method\.\w+=.* is not allowed"):
        make()


def test_learning_rates_of_several_names_share_groups() -> None:
    net, train = set_up()
    assert isinstance(train.recipe, Recipe)
    train.scale_lr({"0.weight": 0.5, "0.bias": 0.5, "4.weight": 0.5, "4.bias": 1.0})
    scales = {
        id(p): group["scale"] for group in train.optimizer.param_groups for p in group["params"]
    }
    assert len(scales) == len(net.parameters())
    assert {name for name, p in net.parameters().items() if scales[id(p)] == 0.5} == {
        "0.weight",
        "0.bias",
        "4.weight",
    }
    assert len(train.optimizer.param_groups) == 4
    train.scale_lr({"0.weight": 2.0, "4.weight": 2.0})
    assert len(train.optimizer.param_groups) == 4
