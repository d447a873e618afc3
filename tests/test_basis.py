"""Interspace pruning: filters as coefficients in a trained basis, combined with any method."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Outcome, compose, result_of
from safetensors.torch import load_file
from torch import nn
from toy import RECIPE, Blobs, Crash, Fragile, model, set_up

from dimred.errors import UserError
from dimred.methods.bases import Interspace
from dimred.net import Net
from dimred.runs.build import build
from dimred.runs.identity import describe, folder_of
from dimred.runs.nets import build_net, load_net
from dimred.storage.folder import RunFolder
from dimred.training.loop import Train

STANDARD, RANDOM = (
    Interspace(share="layer", init="standard", trainable=True),
    Interspace(share="layer", init="random_orthonormal", trainable=True),
)


def convs() -> nn.Module:
    """3x3, 3x3, 3x3 of another width, 5x5, 1x1 and a Linear layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 4, 5),
        nn.Conv2d(4, 4, 1),
        nn.Flatten(),
        nn.LazyLinear(2),
    )


def spanned(basis: Interspace = RANDOM, make: Callable[[], nn.Module] = convs) -> Net:
    built = make()
    built(torch.zeros(2, 1, 13, 13) if make is convs else torch.zeros(2, 1, 4, 4))
    net = Net(built, seed=3)
    basis.apply(net)
    return net


def bases(net: Net) -> dict[str, Any]:
    return dict(net.bases)


# -- the mathematics -----------------------------------------------------------------------------
@pytest.mark.parametrize("basis", [STANDARD, RANDOM], ids=lambda b: b.init)
def test_the_initial_net_is_the_models_own(basis: Interspace) -> None:
    net, images = spanned(basis), torch.randn(2, 1, 13, 13)
    plain = (
        net.model
    )  # the buffers hold coefficients now: what the model computes by itself is something else
    torch.manual_seed(0)
    own = spanned(Interspace(share="layer", init="standard", trainable=False)).state_dict()
    for name, value in net.state_dict().items():
        assert torch.allclose(value, own[name], atol=1e-6)
        assert basis.init != "standard" or torch.equal(value, own[name])
    twin = copy.deepcopy(plain)
    twin.load_state_dict(net.state_dict())
    assert torch.allclose(twin(images), net(images), atol=1e-6)


def test_orthonormal_bases_keep_norms() -> None:
    net = spanned().to(dtype=torch.float64)
    for name, basis in bases(net).items():
        rows = basis.flat.view(basis.n, basis.n)
        assert torch.allclose(rows @ rows.T, torch.eye(basis.n).double(), atol=1e-6)
        filters, lam = (
            net.effective_weights()[name].flatten(2),
            net.dense_weights()[name].flatten(2),
        )
        assert torch.allclose(filters.norm(dim=2), lam.norm(dim=2), rtol=1e-5)
        assert not torch.allclose(filters, lam, atol=0.1)


def test_gradients_of_coefficients_and_basis_are_those_of_the_paper() -> None:
    net, images, labels = spanned(), torch.randn(4, 1, 13, 13), torch.tensor([0, 1, 1, 0])
    F.cross_entropy(net(images), labels).backward()
    twin = copy.deepcopy(net.model)
    twin.load_state_dict(net.state_dict())
    for p in twin.parameters():
        p.requires_grad_(True)
    F.cross_entropy(twin(images), labels).backward()
    for name, basis in bases(net).items():
        n = basis.n
        dh, lam = (
            twin.get_parameter(name).grad.reshape(-1, n),
            net.dense_weights()[name].reshape(-1, n),
        )  # type: ignore
        g = basis.flat.detach().view(n, n)
        expected = torch.stack([(dh * g[i]).sum(1) for i in range(n)], 1)  # <dL/dh, g_n>
        assert torch.allclose(net.weights[name].psi.grad.view(-1, n), expected, atol=1e-6)  # type: ignore
        expected = torch.stack(
            [(lam[:, i : i + 1] * dh).sum(0) for i in range(n)]
        )  # sum of lambda_n dL/dh
        assert torch.allclose(basis.flat.grad.view(n, n), expected, atol=1e-6)


@pytest.mark.parametrize(
    "share, groups",
    [
        ("layer", [["0"], ["2"], ["4"], ["6"]]),
        ("group", [["0", "2"], ["4"], ["6"]]),
        ("network", [["0", "2", "4"], ["6"]]),
    ],
)
def test_bases_are_shared_as_configured_and_counted_once(
    share: Any, groups: list[list[str]]
) -> None:
    net = spanned(Interspace(share=share, init="random_orthonormal", trainable=True))
    found: dict[int, list[str]] = {}
    for name, basis in bases(net).items():
        found.setdefault(id(basis), []).append(name.partition(".")[0])
    assert list(found.values()) == groups
    sizes = {"0": 81, "2": 81, "4": 81, "6": 625}
    own = sum(sizes[group[0]] for group in groups)
    assert (
        net.dim == net.total + own
        and sum(p.numel() for n, p in net.parameters().items() if "basis" in n) == own
    )
    twin = copy.deepcopy(net)
    assert twin.dim == net.dim and len({id(b) for b in twin.bases.values()}) == len(groups)
    assert spanned(Interspace(share=share, init="standard", trainable=False)).dim == net.total


def test_bases_train_without_weight_decay() -> None:
    net = spanned(make=model)
    optimizer = RECIPE.make_optimizer(net)
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert (
        decay[id(net.parameters()["basis:0.weight.flat"])]
        == 0
        < decay[id(net.weights["0.weight"].psi)]
    )


def test_a_basis_makes_no_rounding_in_bfloat16() -> None:
    net = spanned(Interspace(share="layer", init="standard", trainable=True))
    with torch.autocast("cpu", torch.bfloat16):
        assert all(
            torch.equal(value, net.dense_weights()[name])
            for name, value in net.effective_weights().items()
        )


def test_a_model_without_filters_is_refused_with_the_reason() -> None:
    with pytest.raises(
        UserError, match=r"no covered weight of Sequential is one. Choose .* model=resnet20"
    ):
        STANDARD.apply(Net(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(8, 2))))


# -- with methods --------------------------------------------------------------------------------
#: every kind: scores at init, freezing, rounds, rewiring, pruning while training, a map of its own,
#: whole layers
METHODS = {
    "snip": ["method.examples=32"],
    "synflow": ["method.rounds=5"],
    "freezenet": ["method.examples=32"],
    "imp": ["method.prune_rate=0.5", "method.rewind_step=5"],
    "set": [],
    "rigl": ["method.update_every=7"],
    "gmp": ["method.update_every=7"],
    "str": [],
    "edge_popup": [],
    "drop_back": [],
    "freeze_out": [],
    "l1_filters": [],
}


@cache
def method_of(name: str, *more: str) -> Any:
    return build(compose(f"method={name}", "sparsity=0.6", *METHODS[name], *more).method, "method")


def attempt(
    name: str, basis: Interspace | None, folder: Path | None = None, last: int = -1, *more: str
) -> Net:
    """Train the toy by the method, or resume it; Crash before step `last` of all is taken."""
    net = Net(model(), seed=1)
    if basis:
        basis.apply(net)
    recipe = RECIPE.__class__(**{**vars(RECIPE), "steps": 20})
    if folder is None:
        method_of(name, *more).run(net, Train(net, Blobs(), recipe))
        return net
    with RunFolder(folder) as run_folder:
        train = Train(net, Blobs(), recipe, folder=run_folder, observers=[Fragile(last)])
        method_of(name).run(net, train)
    return net


@pytest.mark.parametrize("name", METHODS)
def test_with_a_fixed_standard_basis_every_method_gives_the_same_bits_as_without(
    name: str,
) -> None:
    net, plain = (
        attempt(name, Interspace(share="layer", init="standard", trainable=False)),
        attempt(name, None),
    )
    assert net.dim == plain.dim
    for key, value in plain.state_dict().items():
        assert torch.equal(net.state_dict()[key], value), key
    for key, support in plain.supports.items():
        assert support is None or torch.equal(net.supports[key], support)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["imp", "rigl", "edge_popup"])
def test_a_crash_changes_nothing_and_the_result_loads_and_is_a_plain_model(
    name: str, tmp_path: Path
) -> None:
    """As the conformance suite tests of freezenet and gmp in every basis."""
    net = attempt(name, RANDOM, tmp_path / "whole")
    for last in (1, 9, 17):
        with pytest.raises(Crash):
            attempt(name, RANDOM, tmp_path / "crashed", last)
    state, taken_up = net.state(), attempt(name, RANDOM, tmp_path / "crashed").state()
    assert state.keys() == taken_up.keys() and all(
        torch.equal(state[key], taken_up[key]) for key in state
    )
    loaded, plain, images = Net(model(), seed=1), model(), torch.randn(3, 1, 4, 4)
    RANDOM.apply(loaded)
    loaded.load({key: value for key, value in state.items() if not key.startswith("optimizer/")})
    plain.load_state_dict(net.state_dict())
    for each in (net, loaded, plain):
        each.train(False)
    assert loaded.dim == net.dim and torch.equal(loaded(images), net(images))
    assert torch.allclose(plain(images), net(images), atol=1e-6)


@pytest.mark.parametrize("name", ["snip", "imp", "set", "rigl", "gmp"])
def test_the_coefficients_have_the_sparsity_and_the_filters_do_not(name: str) -> None:
    net = attempt(name, STANDARD, None, -1, "allocation=uniform")
    assert net.dim - 81 == sum(w.dim for w in net.weights.values()) == round(0.4 * net.total)
    coefficients, filters = (
        net.dense_weights()["0.weight"].flatten(2),
        net.effective_weights()["0.weight"].flatten(2),
    )
    alive = (coefficients != 0).any(2)
    assert (coefficients == 0)[alive].any() and filters[alive].all()


def test_freezenet_freezes_coefficients_at_their_initial_value() -> None:
    net = attempt("freezenet", RANDOM)
    own, first = Net(model()).initial()["0.weight"].reshape(-1, 9), Net(model(), seed=1)
    RANDOM.apply(first)
    basis: Any = first.bases["0.weight"]
    assert torch.allclose(
        net.initial()["0.weight"].reshape(-1, 9), own @ basis.flat.view(9, 9).T, atol=1e-6
    )
    for name, w in net.weights.items():
        still = ~w.trained()
        assert still.any() and torch.equal(w.dense()[still], net.initial()[name].view(-1)[still])


def test_a_basis_is_frozen_once_all_its_weights_are() -> None:
    net, _ = set_up()
    STANDARD.apply(net)
    net.freeze({"4.weight": None, "6.weight": None})
    assert net.dim == 36 + 81
    net.freeze({"0.weight": None})
    assert net.dim == 0 and not net.uncovered["basis:0.weight.flat"].requires_grad
    net.keep({"0.weight": torch.arange(3)})
    assert net.dim == 3 + 81


# -- the command ---------------------------------------------------------------------------------
def name_of(*overrides: str) -> str:
    cfg = compose(*overrides)
    return folder_of(cfg, {"method": "M", "model": "N", "dataset": "D"}, describe(cfg)).name


def test_runs_without_a_basis_keep_the_names_of_versions_without_bases() -> None:
    assert "basis" not in describe(compose()) and name_of() == name_of("basis=none")
    names = {
        name_of(*overrides)
        for overrides in (
            (),
            ("basis=layer",),
            ("basis=group",),
            ("basis=network",),
            ("basis=layer", "basis.trainable=false"),
            ("basis=layer", "basis.init=random_orthonormal"),
        )
    }
    assert len(names) == 6


@pytest.mark.parametrize("method", ["snip", "freezenet"])
def test_a_run_with_a_basis_is_loaded_and_exported_like_any_other(
    method: str, train: Callable[..., Path], dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    arguments = [
        f"method={method}",
        "basis=group",
        "basis.init=random_orthonormal",
        "model=resnet20",
        "recipe.steps=3",
        "sparsity=0.8",
    ]
    run = train(*arguments)
    result = result_of(run)
    assert result["basis"] == "group" and result["dim"] == round(0.2 * result["total"]) + 3 * 81
    assert result["density"] > 0.5
    net = load_net(run)
    assert net.dim == result["dim"] and net.bases
    assert dimred("export", str(run), str(tmp_path / "plain.safetensors")).code == 0
    cfg = compose(*arguments)
    data = build(cfg.dataset, "dataset")
    plain = build(cfg.model, "model", shape=data.shape, classes=data.classes).eval()
    plain.load_state_dict(load_file(tmp_path / "plain.safetensors"), strict=True)
    with torch.no_grad():
        right = [
            int((plain(images).argmax(1) == labels).sum())
            for images, labels in data.eval_batches("test")
        ]
    assert (
        abs(sum(right) / data.sizes["test"] - result["test_accuracy"]) < 0.006
    )  # two of 359: rounding


def test_a_basis_for_a_model_without_convolutions_is_answered_in_words(
    dimred: Callable[..., Outcome],
) -> None:
    code, _, err = dimred("train", "basis=layer", "model=lenet300")
    assert (
        code == 1
        and "basis=layer is for convolutions with more than one pixel" in err
        and "Traceback" not in err
    )
    code, _, err = dimred("train", "basis=layr")
    assert code == 1 and "unknown basis 'layr'. Did you mean 'layer'" in err
    code, _, err = dimred("train", "basis=layer", "basis.init=hadamard", "model=resnet20")
    assert (
        code == 1
        and "basis.init=hadamard is not allowed. It must be standard or random_orthonormal" in err
    )


def test_initial_weights_come_from_the_seed_whatever_the_device_or_precision() -> None:
    cfg = compose("model=resnet20", "basis=network", "basis.init=random_orthonormal", "seed=7")
    net, twin = (build_net(cfg, (1, 8, 8), 10) for _ in range(2))
    assert all(torch.equal(value, twin.initial()[name]) for name, value in net.initial().items())
    assert all(
        torch.equal(theta, net.initial()[name]) for name, theta in net.dense_weights().items()
    )


def test_new_weights_where_roots_have_no_gradient_cause_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for method, says in (("rigl method.update_every=3", True), ("snip method.examples=32", False)):
        caplog.clear()
        cfg = compose(*f"method={method}".split(), "basis=power")
        net, _ = set_up()
        build(cfg.basis, "basis").apply(net)
        train = Train(net, Blobs(), RECIPE)
        build(cfg.method, "method").run(net, train)
        assert ("join at zero, where this basis has no gradient" in caplog.text) == says
