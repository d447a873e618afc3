"""The code of docs/own_loop.md, run exactly as written, on handwritten digits."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import ROOT
from sklearn.datasets import load_digits
from torch import Tensor, nn

from dimred import Net, scores
from dimred.channels.selection import Channels
from dimred.training.flops import Costs

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/own_loop.md").read_text(), re.S)
IMPORTS, SNIP, RIGL = BLOCKS
STEPS = 600
TOTAL = 64 * 300 + 300 * 100 + 100 * 10
Namespace = dict[str, Any]


def digits() -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)


def drawn_batches() -> Iterator[tuple[Tensor, Tensor]]:
    images, labels = digits()
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        chosen = torch.randint(1200, (64,), generator=generator)  # the others are for testing
        yield images[chosen], labels[chosen]


def run(block: str) -> Namespace:
    torch.manual_seed(0)
    layers = [nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
    names: Namespace = {"model": nn.Sequential(*layers), "loader": drawn_batches()}
    exec(IMPORTS + block, names)
    return names


@pytest.fixture(scope="module")
def snip() -> Namespace:
    return run(SNIP)


@pytest.fixture(scope="module")
def rigl() -> Namespace:
    return run(RIGL)


def accuracy(model: nn.Module) -> float:
    images, labels = digits()
    with torch.no_grad():
        return float((model(images[1200:]).argmax(1) == labels[1200:]).float().mean())


@pytest.mark.parametrize("block", [SNIP, RIGL], ids=["snip", "rigl"])
def test_an_own_loop_takes_at_most_15_lines(block: str) -> None:
    assert len([line for line in block.splitlines() if line]) <= 15


def test_the_model_is_plain_and_has_as_many_weights_as_asked_for(snip: Namespace) -> None:
    weights = [p for p in snip["model"].parameters() if p.dim() == 2]
    assert sum(int(w.count_nonzero()) for w in weights) == round(0.05 * TOTAL)
    assert accuracy(snip["model"]) > 0.85


def test_the_optimiser_holds_the_trained_numbers_alone(snip: Namespace) -> None:
    state = snip["optimizer"].state.values()
    biases = 300 + 100 + 10
    assert sum(each["exp_avg"].numel() for each in state) == round(0.05 * TOTAL) + biases


def test_rigl_in_an_own_loop_trains_and_stays_sparse(rigl: Namespace) -> None:
    net = rigl["net"]
    assert net.dim == round(0.05 * TOTAL)
    model = rigl["model"]
    model.load_state_dict(net.state_dict())
    assert accuracy(model) > 0.85


def test_rigl_in_an_own_loop_takes_the_optimiser_along(rigl: Namespace) -> None:
    net, optimizer = rigl["net"], rigl["net"].optimizer
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(p) for p in net.parameters().values()
    }
    for weight in net.weights.values():
        assert optimizer.state[weight.psi]["exp_avg"].shape == weight.psi.shape


def test_rigl_in_an_own_loop_replaces_weights(rigl: Namespace) -> None:
    start = run(RIGL.replace("range(100, 450, 100)", "()"))["net"]
    for name, support in rigl["net"].supports.items():
        assert len(support) == len(start.supports[name])
        assert not torch.equal(support, start.supports[name])


class Both(nn.Module):
    """Logits with a loss in training mode, as an object; alone in evaluation mode."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Any:
        logits = self.layers(x)
        return SimpleNamespace(loss=logits.sum(), logits=logits) if self.training else logits


def test_a_model_that_returns_an_object_is_scored_counted_and_trained_by_its_logits() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))
    model, batch = Both(copy.deepcopy(plain)), next(drawn_batches())
    net, other = Net(model, shape=(64,)), Net(plain, shape=(64,))
    net.train(False)
    net(batch[0])  # nothing to find in this mode
    net.train()
    assert torch.equal(net(batch[0]), plain(batch[0]))
    for score in (scores.snip, scores.grasp):
        ours, theirs = score(net, batch), score(other, batch)
        assert torch.equal(ours["layers.0.weight"], theirs["0.weight"])
    assert Costs(net, (64,)).dense_step == Costs(other, (64,)).dense_step
    assert Channels(net, batch[0]).count == Channels(other, batch[0]).count == 30
    assert model(batch[0]).loss is not None  # the model itself is as it was
