"""Models of other builders: the stored network is the trained one, however its builder makes it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import compose
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor, nn

from dimred.errors import UserError
from dimred.files import Json
from dimred.methods.freezing.layers import NormOnly
from dimred.net import Net
from dimred.runs.build import own_weights
from dimred.runs.compact_file import load_compact, save_compact
from dimred.runs.nets import BUILT, build_net, load_net, save_net
from dimred.storage.tensors import write_tensors

SHAPE = (1, 2, 2)
GOES_ON = torch.Generator()  # never seeded again: every build draws other numbers


class Small(nn.Module):
    """Linear(4, 6), BatchNorm, Linear(6, 2); the first weight is given."""

    def __init__(self, weight: Tensor | None = None) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)
        if weight is not None:
            self.a.weight.data.copy_(weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.a(x.flatten(1).to(self.a.weight.dtype))))


DRAWS: dict[str, Callable[[], Any]] = {
    "numpy": lambda: np.random.randn(6, 4),
    "random": lambda: [[random.random() for _ in range(4)] for _ in range(6)],
    "torch": lambda: torch.rand(6, 4),
    "scaled": lambda: 0.5 * torch.empty(6, 4).normal_(),
    "own seed": lambda: torch.randn(6, 4, generator=torch.Generator().manual_seed(3)),
    "goes on": lambda: torch.randn(6, 4, generator=GOES_ON),
}


def drawing(*, shape: Any, classes: int, by: str) -> nn.Module:
    return Small(torch.as_tensor(np.asarray(DRAWS[by]())))


def reading(*, shape: Any, classes: int, file: str) -> nn.Module:
    return Small(load_file(file)["weight"])


def plain(*, shape: Any, classes: int) -> nn.Module:
    return Small()


class Double(Small):
    """In double precision, which its images have to be converted to."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.double())


def double(*, shape: Any, classes: int) -> nn.Module:
    return Double().double()


def timm(*, shape: Any, classes: int, pretrained: bool) -> nn.Module:
    return Small(torch.ones(6, 4) if pretrained else None)


def named(*, shape: Any, classes: int, pretrained: str) -> nn.Module:
    return Small(torch.full((6, 4), float(len(pretrained))))


class Tied(Small):
    """Two layers of one weight, a layer of three names, two buffers of one memory, and one that is
    not saved."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.c, self.d = nn.Linear(6, 6), nn.Linear(6, 6)
        self.d.weight = self.c.weight
        self.again = nn.ModuleList([self.b, self.b])
        self.register_buffer("one", torch.ones(6))
        self.register_buffer("other", self.one)
        self.register_buffer("mask", torch.rand(6), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.d(self.c(self.a(x.flatten(1))))
        return self.again[1](x * self.one * self.other * self.mask)


def tied(*, shape: Any, classes: int) -> nn.Module:
    return Tied()


def of(builder: str, **knobs: Any) -> tuple[Net, Json]:
    """A net, and what is written of its configuration."""
    cfg = compose()
    cfg.model = {"_target_": f"{__name__}.{builder}", **knobs}
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return build_net(cfg, SHAPE, 2), {key: plain[key] for key in BUILT} | {
        "model": own_weights(plain["model"])
    }


@torch.no_grad()
def freeze_most(net: Net) -> None:
    """Train three entries of each weight, away from their initial values."""
    net.keep({name: torch.arange(3) for name in net.weights}, base="init")
    for w in net.weights.values():
        w.psi.add_(1)


def save(folder: Path, net: Net, built: Json) -> Path:
    save_net(folder / "model.safetensors", net, built, {"shape": list(SHAPE), "classes": 2})
    return folder


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# -- random numbers ------------------------------------------------------------------------------
@pytest.mark.parametrize("by", ["numpy", "random", "torch", "scaled", "own seed"])
def test_the_seed_gives_the_initial_weights_whatever_draws_them(by: str) -> None:
    first, again = (of("drawing", by=by)[0].state_dict() for _ in range(2))
    assert_equal(first, again)


@pytest.fixture
def states() -> Iterator[None]:
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    # type: ignore
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    yield
    # type: ignore
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert before == after


@pytest.mark.usefixtures("states")
def test_building_leaves_all_random_states_as_they_were(tmp_path: Path) -> None:
    for by in DRAWS:
        net, built = of("drawing", by=by)
        load_net(save(tmp_path, net, built), trust=True)
        save_compact(
            tmp_path / "net.dimred", net, {"model": built["model"], "shape": SHAPE, "classes": 2}
        )
    with pytest.raises(UserError, match=r"ZeroDivisionError.*Add --debug"):
        of("failing")


def failing(*, shape: Any, classes: int) -> nn.Module:
    np.random.rand(), random.random(), torch.rand(1)
    return 1 / 0  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("builder", "knobs"),
    [("plain", {}), ("double", {}), ("tied", {}), *(("drawing", {"by": by}) for by in DRAWS)],
)
def test_the_trained_network_comes_back(builder: str, knobs: Json, tmp_path: Path) -> None:
    net, built = of(builder, **knobs)
    freeze_most(net)
    assert_equal(load_net(save(tmp_path, net, built), trust=True).state_dict(), net.state_dict())


@pytest.mark.parametrize("by", DRAWS)
def test_frozen_weights_are_those_that_the_net_began_with(by: str) -> None:
    net, _ = of("drawing", by=by)
    before = {name: theta.clone() for name, theta in net.dense_weights().items()}
    freeze_most(net)
    for name, w in net.weights.items():
        assert torch.equal(w.dense()[3:], before[name].view(-1)[3:])
    initial = net.initial()
    initial["a.weight"].zero_()  # what is returned belongs to the caller
    assert torch.equal(net.initial()["a.weight"], before["a.weight"])


@pytest.mark.parametrize(
    ("builder", "knobs", "stored"),
    [("plain", {}, []), ("drawing", {"by": "numpy"}, ["theta/a.weight"])],
)
def test_what_the_seed_draws_is_not_stored(
    builder: str, knobs: Json, stored: list[str], tmp_path: Path
) -> None:
    net, built = of(builder, **knobs)
    freeze_most(net)
    state = load_file(save(tmp_path, net, built) / "model.safetensors")
    assert [name for name in state if name.startswith("theta/")] == stored
    assert state["psi/a.weight"].numel() == 3


def test_other_numbers_of_a_seed_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, built = of("plain")
    freeze_most(net)
    save(tmp_path, net, built)
    monkeypatch.setattr(
        "dimred.net.seeded.Draw.values", lambda draw, count: np.ones(count, np.float32)
    )
    with pytest.raises(UserError, match=r"the seed draws other initial weights on this machine"):
        load_net(tmp_path, trust=True)


def test_a_file_that_the_builder_reads_may_change(tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"
    write_tensors(file, {"weight": torch.rand(6, 4)})
    net, built = of("reading", file=str(file))
    freeze_most(net)
    save(tmp_path, net, built)
    write_tensors(file, {"weight": torch.zeros(6, 4)})
    assert_equal(load_net(tmp_path, trust=True).state_dict(), net.state_dict())
    freeze_most(net)  # and while the run goes on
    assert net.weights["a.weight"].dense()[3:].all()
    file.unlink()
    with pytest.raises(
        UserError, match=r"the builder of its model failed .*own.safetensors.*Put the files"
    ):
        load_net(tmp_path, trust=True)


@pytest.mark.parametrize(
    ("builder", "given", "stored"),
    [("timm", True, False), ("timm", False, False), ("named", "abc", "abc")],
)
def test_pretrained_may_be_true_or_a_name(
    builder: str, given: Any, stored: Any, tmp_path: Path
) -> None:
    net, built = of(builder, pretrained=given)
    assert built["model"]["pretrained"] == stored
    freeze_most(net)
    assert_equal(load_net(save(tmp_path, net, built), trust=True).state_dict(), net.state_dict())
    save_compact(
        tmp_path / "net.dimred", net, {"model": built["model"], "shape": SHAPE, "classes": 2}
    )
    assert_equal(load_compact(tmp_path / "net.dimred", trust=True).state_dict(), net.state_dict())


# -- memory that is shared -----------------------------------------------------------------------
@pytest.mark.parametrize("basis", ["none", "power"])
def test_tied_weights_are_written_under_all_of_their_names(basis: str, tmp_path: Path) -> None:
    cfg = compose(f"basis={basis}")
    cfg.model = {"_target_": f"{__name__}.tied"}
    net = build_net(cfg, SHAPE, 2)
    freeze_most(net)
    write_tensors(tmp_path / "dense", net.state_dict())
    about = {"model": dict(cfg.model), "shape": list(SHAPE), "classes": 2}
    save_compact(tmp_path / "net.dimred", net, about)
    images = torch.rand(3, *SHAPE)
    net.train(False)
    for state in (
        load_file(tmp_path / "dense"),
        load_compact(tmp_path / "net.dimred", trust=True).state_dict(),
    ):
        plain = Tied().eval()
        assert set(state) == set(plain.state_dict())
        plain.load_state_dict(state)
        plain.mask.copy_(net.model.mask)  # type: ignore[arg-type]
        assert torch.equal(plain(images), net(images))


def test_buffers_that_state_dicts_leave_out_come_back(tmp_path: Path) -> None:
    net, built = of("tied")
    net.model.mask.mul_(2)  # type: ignore[operator, union-attr]
    images = torch.rand(3, *SHAPE)
    net.train(False)
    save_compact(
        tmp_path / "net.dimred", net, {"model": built["model"], "shape": SHAPE, "classes": 2}
    )
    loaded = load_net(save(tmp_path, net, built), trust=True)
    loaded.train(False)
    assert torch.equal(loaded(images), net(images))
    assert torch.equal(load_compact(tmp_path / "net.dimred", trust=True)(images), net(images))


# -- frozen by the builder -----------------------------------------------------------------------
def frozen(*parts: str) -> nn.Module:
    torch.manual_seed(0)
    model = Small()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(parts))
    return model


def test_parameters_that_the_model_has_frozen_are_not_covered_and_never_train() -> None:
    net = Net(frozen("a", "norm.weight"))
    assert list(net.weights) == ["b.weight"] and net.total == net.dim == 12
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters().values(), 0.1, momentum=0.9, weight_decay=0.1)
    net.optimizer = optimizer
    net.freeze(dict.fromkeys(net.parameters()))
    # what a method may do, in the name of all
    net.keep(dict.fromkeys(net.parameters()), base="held")
    twin = Net(frozen("a", "norm.weight"))
    twin.load(net.state())
    for each in (net, twin):
        assert {name for name, p in each.uncovered.items() if p.requires_grad} == {
            "norm.bias",
            "b.bias",
        }
    net(torch.rand(5, *SHAPE)).square().sum().backward()
    optimizer.step()
    changed = {
        name for name, value in net.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed & set(net.parameters()) == {"norm.bias", "b.weight", "b.bias"}


def test_a_model_with_nothing_left_to_cover_is_refused() -> None:
    message = r"the model's builder has frozen \(requires_grad=False\) a.weight, b.weight"
    with pytest.raises(UserError, match=message):
        Net(frozen("a", "b"))
    with pytest.raises(UserError, match=r"has frozen \(requires_grad=False\) a.weight\. Leave"):
        Net(frozen("a"), include=["a.weight"])
    with pytest.raises(UserError, match=r"has none \(with scale and shift\)"):
        NormOnly(gamma_init="uniform", train_output_layer=False, also_train=()).run(
            Net(frozen("norm")), None
        )  # type: ignore[arg-type]


# -- the folder of a run as a start --------------------------------------------------------------
def test_a_run_is_a_start_for_a_net_of_the_same_builder(tmp_path: Path) -> None:
    net, built = of("start", pretrained=None)
    freeze_most(net)
    run = save(tmp_path / "run", net, built)
    again, stored = of("start", pretrained=str(run))
    assert_equal(again.state_dict(), net.state_dict())
    assert stored["model"]["pretrained"] is None
    freeze_most(again)
    with pytest.raises(UserError, match=r"code that is not dimred's: test_builders.start"):
        load_net(run)  # nobody has asked for that code
    (run / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no model.safetensors in .*run: that is no run"):
        of("start", pretrained=str(run))
    assert_equal(
        load_net(save(tmp_path, again, stored), trust=True).state_dict(), again.state_dict()
    )


def start(*, shape: Any, classes: int, pretrained: str | None) -> nn.Module:
    return Small()
