"""recipe.arithmetic: sparse products in models that know nothing of them, and the choice between
sparse and dense ones."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import Command, assert_same, compose, result_of, steps_done, twin, until, warnings_in
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from toy import set_up

from dimred.conformance.make import Make
from dimred.conformance.observe import run
from dimred.conformance.products import relative_difference
from dimred.conformance.toy import NETS
from dimred.net import Net
from dimred.net.coordinates import Base
from dimred.net.sparse import SparseArithmetic
from dimred.runs.config.files import description
from dimred.scores import random_scores
from dimred.select.topk import topk
from dimred.training.arithmetic import Arithmetic
from dimred.training.recipe import Recipe


class Block(nn.Module):
    """All that may lie between convolutions: norms, a residual addition, poolings, a stride."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding="same")
        self.third = nn.Conv2d(8, 6, 1, stride=2, padding="valid")
        self.last = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.first(x))), 2)
        x = F.avg_pool2d(F.relu(x + self.second(x)), 2, ceil_mode=True)
        return self.last(F.adaptive_avg_pool2d(self.third(x), 1).flatten(1))


def pruned(model: nn.Module, density: float = 0.3) -> Net:
    net = Net(model)
    net.keep(topk(random_scores(net), round(density * net.total)))
    return net


def gradients(net: Net, x: Tensor, dense: bool = False) -> dict[str, Tensor]:
    """Of the sum of squared outputs; dense: of all covered weights."""
    net.zero_grad()
    net.retain_grad(dense)
    with net.weights_in_place() as model:
        model(x).square().sum().backward()
    found = {name: p.grad.clone() for name, p in net.parameters().items() if p.grad is not None}
    return net.grads() if dense else found


def assert_same_gradients(net: Net, x: Tensor) -> None:
    """With sparse products, all gradients are the dense ones of float64."""
    for dense in (False, True):
        net.arithmetic = SparseArithmetic()
        found = gradients(net, x, dense)
        net.arithmetic = None
        expected = gradients(net, x, dense)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, msg=name)


@pytest.mark.parametrize("batch", [1, 5, 20])
@pytest.mark.parametrize("training", [True, False])
def test_sparse_products_have_the_gradients_of_dense_ones(batch: int, training: bool) -> None:
    if training and batch == 1:
        batch = 2
    torch.manual_seed(0)
    net = pruned(Block()).to(dtype=torch.float64)
    net.train(training)
    assert_same_gradients(net, torch.randn(batch, 3, 9, 9, dtype=torch.float64))


@pytest.mark.parametrize("base", ["zero", "init"])
@pytest.mark.parametrize("shape", [(9,), (0, 9), (2, 3, 9)])
def test_linear_layers_take_inputs_of_any_shape(base: Base, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = Net(nn.Sequential(nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 4))).to(dtype=torch.float64)
    net.keep(topk(random_scores(net), round(0.3 * net.total)), base=base)
    assert_same_gradients(net, torch.randn(*shape, dtype=torch.float64))


@pytest.mark.parametrize("base", ["zero", "init"])
def test_an_empty_batch_of_images_has_no_gradient(base: Base) -> None:
    net = Net(nn.Conv2d(3, 4, 3)).to(dtype=torch.float64)
    net.keep(topk(random_scores(net), round(0.3 * net.total)), base=base)
    assert_same_gradients(net, torch.randn(0, 3, 9, 9, dtype=torch.float64))


@pytest.mark.parametrize("base", ["init", "held"])
def test_frozen_entries_that_are_not_zero_get_no_gradient(base: Base) -> None:
    """What is trained gets its own, of products whose other gradients are dense."""
    torch.manual_seed(0)
    net = Net(Block()).to(dtype=torch.float64)
    net.keep(topk(random_scores(net), round(0.3 * net.total)), base=base)
    assert_same_gradients(net, torch.randn(5, 3, 9, 9, dtype=torch.float64))
    net.arithmetic = sparse = SparseArithmetic()
    gradients(net, torch.randn(5, 3, 9, 9, dtype=torch.float64))
    assert sparse.refused.keys() == {"second.weight"}  # padding="same"
    shapes = []

    class Gradients(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if function is torch.ops.aten.convolution_backward.default:
                shapes.append(out[1] is not None)
            return out

    with Gradients():
        gradients(net, torch.randn(5, 3, 9, 9, dtype=torch.float64))
    assert shapes.count(True) == 1, "the dense gradient of `second` alone"


class Noisy(nn.Module):
    """Dropout of images, of rows and of tokens, by a module and by functions."""

    def __init__(self, images: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3) if images else nn.Unflatten(1, (3, 9))
        self.drop = nn.Dropout(0.3)
        self.first, self.last = nn.LazyLinear(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(F.relu(self.conv(x))).flatten(2)
        x = F.dropout(F.relu(self.first(x)), 0.4, self.training)
        return F.dropout(self.last(x.mean(1)), training=self.training)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("images", [True, False])
def test_dropout_drops_what_it_drops_with_dense_products(images: bool, channels_last: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 7, 7) if images else torch.randn(4, 27)
    model = Noisy(images)
    model(x)
    net, found = pruned(model), []
    for net.arithmetic in (None, SparseArithmetic()):
        torch.manual_seed(0)
        for training in (True, False, True, True):
            net.train(training)
            with net.weights_in_place(channels_last=channels_last) as live:
                found.append(live(x))
    assert net.arithmetic and net.arithmetic.weights(net).keys() == net.weights.keys()
    for dense, sparse in zip(found[:4], found[4:], strict=True):
        torch.testing.assert_close(sparse, dense)


class Sampled(nn.Module):
    """A weight that is also used by something else than a product, and one in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.tied, self.groups = nn.Linear(8, 8), nn.Conv2d(2, 2, 3, groups=2)
        self.plain = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.groups(x).flatten(1)
        return self.plain(self.tied(x) @ self.tied.weight.t() + self.tied.weight.norm())


def test_other_uses_of_a_weight_are_dense_and_right() -> None:
    net = pruned(Sampled(), 0.5).to(dtype=torch.float64)
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    assert_same_gradients(net, x)
    net.arithmetic = sparse = SparseArithmetic()
    gradients(net, x)
    assert sparse.refused.keys() == {"tied.weight", "groups.weight"}
    assert sparse.refused["groups.weight"] == "groups=2"
    assert sparse.weights(net).keys() == {"plain.weight"}


def test_only_a_part_that_trains_with_zeros_around_is_multiplied_sparsely() -> None:
    net = Net(nn.Sequential(*(nn.Linear(4, 4) for _ in range(4))))
    some = torch.tensor([1, 5])
    net.keep({"0.weight": some, "3.weight": some})
    net.keep({"1.weight": torch.arange(16)})
    net.freeze({"2.weight": None})
    assert SparseArithmetic().weights(net).keys() == {"0.weight", "3.weight"}


@pytest.mark.parametrize("kind", NETS)
def test_sparse_products_train_every_kind_of_net_as_dense_ones_do(kind: str) -> None:
    """Grouped convolutions, attention and tied weights among them; some of these stay dense."""
    method, found = Make("rigl", compose("method=rigl"))(), []
    for arithmetic in ("dense", "sparse"):
        net = run(method, kind, dtype=torch.float64, arithmetic=arithmetic)
        found.append(net.state_dict())
    assert relative_difference(found[1], found[0])[1] < 1e-9


# -- runs --------------------
SHORT = ("recipe.steps=20", "recipe.batch_size=50")


@pytest.mark.parametrize("method", ["snip", "rigl", "gmp"])
def test_losses_are_those_of_dense_arithmetic(
    method: str, train: Callable[..., Path], tmp_path: Path
) -> None:
    lines = []
    for arithmetic in ("dense", "sparse"):
        run = train(f"method={method}", f"recipe.arithmetic={arithmetic}", *SHORT)
        lines.append([json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()])
        result = result_of(run)
        assert result["arithmetic"] == arithmetic and result["step_seconds"] > 0
        assert ("sparse_products" in result) == (arithmetic == "sparse")
        for of_size in result["inference_seconds"].values():
            assert set(of_size) == {"dense", arithmetic} and min(of_size.values()) > 0
    for dense, sparse in zip(*lines, strict=True):
        for key in ("train_loss", "val_loss"):
            assert sparse[key] == pytest.approx(dense[key], abs=1e-6)


def test_a_killed_run_with_sparse_products_resumes_to_the_same_bits(
    train: Callable[..., Path], start: Callable[..., Command], tmp_path: Path
) -> None:
    arguments = ["method=rigl", "recipe.arithmetic=sparse", "recipe.epochs=4"]
    arguments.append("checkpoint_seconds=0")
    whole = train(*arguments)
    killed = twin(whole, tmp_path / "killed")
    process = start("train", *arguments, f"outputs={tmp_path / 'killed'}").process
    until(lambda: steps_done(killed) > 10)
    process.kill()
    process.join()
    assert_same(train(*arguments, outputs=tmp_path / "killed"), whole)


def test_a_resumed_run_keeps_what_auto_has_chosen(
    train: Callable[..., Path], start: Callable[..., Command], tmp_path: Path
) -> None:
    """Two processes may measure otherwise, so a killed run is resumed twice."""
    arguments = ["method=gmp", "recipe.arithmetic=auto", "recipe.epochs=4", "checkpoint_seconds=0"]
    process = start("train", *arguments, f"outputs={tmp_path / 'one'}").process
    until(lambda: any(steps_done(run) > 40 for run in tmp_path.glob("one/runs/*/*/*")))
    process.kill()
    process.join()
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    one, other = (train(*arguments, outputs=tmp_path / name) for name in ("one", "other"))
    assert_same(one, other)


def without_compiler(empty: str) -> None:
    os.environ.update(PATH=empty, XDG_CACHE_HOME=empty)


def test_a_run_can_be_resumed_on_a_machine_without_a_compiler(
    train: Callable[..., Path], start: Callable[..., Command], tmp_path: Path
) -> None:
    """Its weights are those of an uninterrupted run up to rounding, and a warning says so."""
    arguments = ["method=magnitude", "model=lenet5", "dataset.resize=16"]
    arguments += ["recipe.steps=30", "checkpoint_seconds=0", "recipe.arithmetic=sparse"]
    whole = train(*arguments)
    killed = twin(whole, tmp_path / "killed")
    process = start("train", *arguments, f"outputs={tmp_path / 'killed'}").process
    until(lambda: steps_done(killed) > 10)
    process.kill()
    process.join()
    (tmp_path / "empty").mkdir()
    outcome = start(
        *("train", *arguments, f"outputs={tmp_path / 'killed'}"),
        before=partial(without_compiler, str(tmp_path / "empty")),
    ).wait()
    assert outcome.code == 0, outcome.err
    assert "resumed with PyTorch's operations instead of the sparse kernels" in outcome.err
    assert "none of the compilers c++, g++, clang++ is installed" in outcome.err
    assert outcome.err.count("sparse kernels") == 2
    products = result_of(killed)["sparse_products"]
    assert not any(name.startswith("conv") for name in products)
    expected = load_file(whole / "model.safetensors")
    for name, value in load_file(killed / "model.safetensors").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5, msg=name)


def wide_and_narrow() -> Net:
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(16, 2048), nn.Linear(2048, 2048)))
    few = torch.arange(0, 2048 * 2048, 97)
    net.keep({"2.weight": few})
    return net


def test_auto_chooses_what_is_faster_and_measures_again_when_density_changes() -> None:
    net = wide_and_narrow()
    arithmetic = Arithmetic(net, Recipe(arithmetic="auto"))
    steps = []

    def step() -> None:
        steps.append(1)
        with net.weights_in_place() as model:
            model(torch.ones(64, 16)).sum().backward()

    arithmetic.prepare(step)
    # a hundredth of the products: faster on every machine
    assert arithmetic.sparse and arithmetic.sparse.chosen == {"2.weight"} and steps
    assert all(parameter.grad is None for parameter in net.parameters().values())
    state = json.loads(json.dumps(arithmetic.state()))
    steps.clear()
    arithmetic.prepare(step)
    assert not steps
    resumed = Arithmetic(net, Recipe(arithmetic="auto"))
    resumed.load(state)
    resumed.prepare(step)
    assert not steps and resumed.sparse and resumed.sparse.chosen == {"2.weight"}
    net.keep({"2.weight": torch.arange(0, 2048 * 2048, 300)})
    resumed.prepare(step)
    assert steps


def test_auto_measures_again_where_there_are_other_kernels(
    caplog: pytest.LogCaptureFixture,
) -> None:
    arithmetic = Arithmetic(wide_and_narrow(), Recipe(arithmetic="auto"))
    state = {"chosen": ["2.weight"], "refused": {}, "measured_at": {"2.weight": 0.01}}
    arithmetic.load({**state, "kernels": "those of another machine"})
    assert arithmetic.sparse and not arithmetic.sparse.chosen
    assert warnings_in(caplog)[0].count("instead of the sparse kernels those of another machine")
    steps = []
    arithmetic.prepare(lambda: steps.append(1))
    assert steps
    # a checkpoint may be older than this entry
    arithmetic.load(state)
    assert arithmetic.sparse.chosen == {"2.weight"}


@pytest.mark.parametrize("why", ["bf16", "compile"])
def test_where_there_are_no_sparse_kernels_products_are_dense(
    why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        net, _ = set_up(arithmetic="sparse")
        assert net.arithmetic and not caplog.text
        arithmetic = Arithmetic(Net(nn.Linear(2, 2)), Recipe(arithmetic="auto", **{why: True}))
    assert arithmetic.sparse is None and len(caplog.records) == 1 and why in caplog.text


def test_dense_runs_keep_their_names() -> None:
    def described(*overrides: str) -> dict:
        config = OmegaConf.to_container(compose(*overrides), resolve=True)
        assert isinstance(config, dict)
        return description({str(key): value for key, value in config.items()})

    assert "arithmetic" not in described()["recipe"]
    assert described("recipe.arithmetic=auto")["recipe"]["arithmetic"] == "auto"


def test_sparse_products_may_be_changed_in_place() -> None:
    """As torchvision's VGG does, by nn.ReLU(inplace=True)."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(1024, 32),
        nn.ReLU(inplace=True),
        nn.Linear(32, 4),
    )
    net = Net(model)
    net.keep({name: torch.arange(0, w.size, 7) for name, w in net.weights.items()})
    images, gradients = torch.randn(16, 3, 8, 8), list[list[Tensor]]()
    for arithmetic in (None, SparseArithmetic()):
        net.arithmetic = arithmetic
        net.zero_grad()
        net(images).square().sum().backward()
        gradients.append([w.psi.grad for w in net.weights.values() if w.psi.grad is not None])
    assert len(gradients[0]) == 3
    for dense, sparse in zip(*gradients, strict=True):
        assert torch.allclose(dense, sparse, atol=1e-6 * dense.abs().max().item())
