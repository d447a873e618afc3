"""Trying one batch on a model and its data: other outputs are converted or refused in one
sentence, and nothing changes."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import Blobs

from dimred.cli.export import as_onnx, as_program, batches, run_onnx, run_program
from dimred.errors import UserError
from dimred.net import Net
from dimred.runs.trial import give_logits, try_batch

SHAPE, CLASSES = (1, 4, 4), 3
OUTPUTS: dict[str, Callable[[Tensor, bool], Any]] = {
    "tensor": lambda y, training: y,
    "tuple": lambda y, training: (y, y * 2),
    "list": lambda y, training: [y],
    "dictionary": lambda y, training: {"features": y * 2, "logits": y},
    "object": lambda y, training: SimpleNamespace(loss=None, logits=y),
    "tuple in training": lambda y, training: (y, y * 2) if training else y,
    "tuple in evaluation": lambda y, training: y if training else (y, y * 2),
}


class Own(nn.Module):
    """A linear model with BatchNorm, dropout and other returns."""

    def __init__(self, returns: Callable[[Tensor, bool], Any], outputs: int = CLASSES) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(16, outputs), nn.BatchNorm1d(outputs)
        self.drop = nn.Dropout(0.5)
        self.returns = returns

    def forward(self, x: Tensor) -> Any:
        return self.returns(self.drop(self.norm(self.linear(x.flatten(1)))), self.training)


class Restless(Own):
    """Draws from all global generators, and has a cache that grows."""

    def __init__(self) -> None:
        super().__init__(OUTPUTS["tuple"])
        self.register_buffer("cache", torch.zeros(0), persistent=False)

    def forward(self, x: Tensor) -> Any:
        self.cache = torch.zeros(len(x))
        return super().forward(x + np.random.rand() + random.random())


def own(returns: Callable[[Tensor, bool], Any], outputs: int = CLASSES) -> Own:
    model = Own(returns, outputs)
    give_logits(model, SHAPE, CLASSES, "own.build")
    return model


# -- models --------------------
@pytest.mark.parametrize("kind", OUTPUTS)
def test_logits_are_found_in_what_a_model_returns(kind: str) -> None:
    model, images = own(OUTPUTS[kind]), torch.rand(5, *SHAPE)
    net = Net(model)
    for training in (True, False):
        net.train(training)
        torch.manual_seed(0)
        logits = net(images)
        torch.manual_seed(0)
        expected = model.drop(model.norm(model.linear(images.flatten(1))))
        assert torch.allclose(logits, expected)
    give_logits(model, SHAPE, CLASSES, "own.build")
    assert len(model._forward_hooks) == (kind != "tensor")


@pytest.mark.parametrize(
    ("returns", "outputs", "problem"),
    [
        (lambda y, training: None, 3, "returns None"),
        (lambda y, training: {"out": y}, 3, "a dictionary with the keys 'out'"),
        (lambda y, training: ("logits", y), 3, "returns a tuple"),
        (lambda y, training: y[:, :, None, None], 3, r"shape \(2, 3, 1, 1\) for two images"),
        (lambda y, training: y.sum(), 3, r"shape \(\) for two images"),
        (lambda y, training: y.argmax(1), 3, r"shape \(2,\)"),
        (lambda y, training: y, 2, "2 outputs, but the data has 3 classes"),
    ],
)
def test_a_model_that_gives_no_logits_is_refused(returns: Any, outputs: int, problem: str) -> None:
    with pytest.raises(UserError, match=rf"own\.build makes a model .*{problem}"):
        own(returns, outputs)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 3)), "3 channels"),
        (
            nn.Sequential(nn.Conv2d(1, 4, 5), nn.Flatten(), nn.Linear(16, 3)),
            "greater than actual input size",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(17, 3)), "shapes cannot be multiplied"),
    ],
)
def test_a_model_for_other_images_is_refused(model: nn.Module, why: str) -> None:
    with pytest.raises(
        UserError, match=f"own.build cannot compute on images of 1x4x4 .*{why}.*dataset.resize"
    ):
        give_logits(model, SHAPE, CLASSES, "own.build")


def test_trying_a_batch_changes_nothing() -> None:
    model = Restless()
    model.norm.eval()  # as a builder may do
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1:3], random.getstate()
    give_logits(model, SHAPE, CLASSES, "own.build")
    try_batch(Net(model), Blobs(), 4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert repr((np.random.get_state()[1:3], random.getstate())) == repr(states[1:])
    assert model.training and not model.norm.training
    assert all(p.grad is None for p in model.parameters())


# -- data --------------------
def test_batchnorm_of_one_example_is_refused() -> None:
    net = Net(own(OUTPUTS["tensor"]))
    with pytest.raises(UserError, match=r"recipe\.batch_size=1 is too small"):
        try_batch(net, Blobs(), 1)
    try_batch(net, Blobs(), 2)


class Odd(Blobs):
    """Data whose sample is changed."""

    def __init__(self, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.change = change

    def sample(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        return self.change(*super().sample(n, seed))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda images, labels: (images.double(), labels), "images of type torch.float64"),
        (
            lambda images, labels: (images[:, 0], labels),
            r"images of type torch.float32 and shape \(2, ",
        ),
        (lambda images, labels: (images, labels.int()), "labels of type torch.int32"),
        (
            lambda images, labels: (images, labels[:, None]),
            r"labels of type torch.int64 and shape \(2, 1\)",
        ),
        (lambda images, labels: (images, labels - 10), "gives the labels"),
    ],
)
def test_batches_of_the_wrong_form_are_refused(change: Any, problem: str) -> None:
    data = Odd(change)
    model = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(data.shape)), data.classes))
    with pytest.raises(UserError, match=problem):
        try_batch(Net(model), data, 8)


def test_data_without_test_examples_is_refused() -> None:
    data = Blobs()
    data.sizes = {**data.sizes, "test": 0}
    with pytest.raises(UserError, match="no test examples"):
        try_batch(Net(nn.Linear(1, 1)), data, 8)


# -- exported files --------------------
class OneByOne(nn.Module):
    """Unrolls over its batch, so that an exported program has the size of the example's."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.linear(x[i].flatten()) for i in range(len(x))])


FORMS: list[tuple[Any, Any]] = [(as_onnx, run_onnx), (as_program, run_program)]


@pytest.mark.parametrize(("write", "run"), FORMS)
@pytest.mark.parametrize("kind", ["tuple", "dictionary"])
def test_exported_models_give_logits_for_batches_of_any_size(
    write: Any, run: Any, kind: str
) -> None:
    model, images = own(OUTPUTS[kind]).eval(), torch.zeros(2, *SHAPE)
    assert batches(run(write(model, images)), model, images) == "for batches of any size"


@pytest.mark.parametrize(("write", "run"), FORMS)
def test_a_model_with_a_fixed_batch_size_is_exported_with_a_warning(write: Any, run: Any) -> None:
    model, images = OneByOne().eval(), torch.zeros(2, *SHAPE)
    assert "NOT for batches of 1 or 5" in batches(run(write(model, images)), model, images)


def test_other_logits_and_failing_exports_are_errors() -> None:
    model, images = own(OUTPUTS["tensor"]).eval(), torch.zeros(2, *SHAPE)
    with pytest.raises(UserError, match="does not compute the model's logits"):
        batches(lambda x: model(x) + 1, model, images)

    def returns(y: Tensor, training: bool) -> Tensor:
        return y if float(y.sum()) > 1e9 else y * 2

    with pytest.raises(UserError, match="PyTorch cannot export Own"):
        as_program(Own(returns).eval(), images)
