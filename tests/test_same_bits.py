"""Sums that a GPU, or several threads, would add up in another order in every run are computed in
another way.

The conformance suite looks for them in all methods (check_sums).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import compose
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dimred.conformance import Make
from dimred.conformance.observe import run
from dimred.conformance.sums import UnorderedSums, deterministic_kernels
from dimred.models import lenet5, mobilenet, resnet, text_transformer, vgg, vit
from dimred.net import Net
from dimred.scores.basic import lamp


def test_lamp_adds_up_on_the_host() -> None:
    # tensors on a GPU are PyTorch's fake ones
    with FakeTensorMode(), UnorderedSums() as sums:
        net = Net(nn.Linear(5, 3, device="cuda"), initial=dict)
        scores = lamp(net)
    assert scores["weight"].is_cuda
    assert sums.found == {("aten.cumsum", "cpu")}


@pytest.mark.parametrize(
    "rows, dim, unordered",
    [
        ([[0, 1], [1, 0]], 0, False),
        ([[0, 1], [1, 1]], 0, True),
        ([[0, 0], [1, 0]], -1, True),
    ],
)
def test_sums_are_unordered_where_entries_have_the_same_place(
    rows: list[list[int]], dim: int, unordered: bool
) -> None:
    with UnorderedSums() as sums:
        torch.zeros(2, 2).scatter_add_(dim, torch.tensor(rows), torch.ones(2, 2))
    assert bool(sums.found) is unordered


INIT: dict[str, Any] = {"init": "kaiming_normal", "pretrained": None}
IMAGES: dict[str, Any] = {"shape": (3, 32, 32), "classes": 10, **INIT}
BLOCKS: dict[str, Any] = {"dim": 8, "depth": 1, "heads": 2, "mlp": 1}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lenet5": lambda: lenet5(relu=True, **IMAGES),
    "vgg": lambda: vgg(depth=11, **IMAGES),
    "resnet": lambda: resnet(depth=20, width=1, shortcut="conv", **IMAGES),
    "mobilenet": lambda: mobilenet(width=0.25, stem_stride=1, **IMAGES),
    "vit": lambda: vit(patch=None, **BLOCKS, **IMAGES),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_of_the_surveys_have_no_unordered_sums(name: str) -> None:
    assert not sums_of(NETWORKS[name](), torch.randn(2, 3, 32, 32))


def test_attention_has_unordered_sums_only_by_the_fastest_kernels() -> None:
    batch = torch.randn(2, 3, 32, 32)
    model = NETWORKS["vit"]()
    assert not sums_of(model, batch)
    with UnorderedSums() as sums:
        model(batch).sum().backward()
    assert len(sums.found) == 1


def test_gradients_of_embeddings_are_unordered() -> None:
    """On a GPU, by PyTorch's list."""
    model = text_transformer(vocabulary=5, shape=(12,), classes=2, **BLOCKS, **INIT)
    found = sums_of(model, torch.ones(2, 12, dtype=torch.int64))
    assert found == {("aten.embedding_dense_backward", "cpu")}


@pytest.mark.parametrize("projection", ["fastfood", "sparse"])
def test_intrinsic_dimension_adds_up_in_the_same_order(projection: str) -> None:
    method = compose("method=intrinsic_dimension", f"method.projection={projection}")
    with UnorderedSums() as sums:
        run(Make("intrinsic_dimension", method)(), "conv_norm", steps=8)
    assert not sums.found


def sums_of(model: nn.Module, batch: Tensor) -> set[tuple[str, str]]:
    with deterministic_kernels(), UnorderedSums() as sums:
        F.cross_entropy(model(batch), torch.zeros(2, dtype=torch.int64)).backward()
    return sums.found


@pytest.mark.parametrize(
    "dtype, index, unordered",
    [
        (torch.float32, torch.tensor([0, 0, 1]), True),
        (torch.float64, torch.tensor([0, 0, 1]), False),
        (torch.float32, torch.tensor([0, 2, 1]), False),
        (torch.float32, torch.tensor([True, True, False]), False),
        (torch.float32, (slice(None), torch.tensor([0, 0])), True),
        (torch.float32, (torch.tensor([0, 0]), torch.tensor([0, 1])), False),
    ],
)
def test_gradients_of_selected_entries_are_unordered_in_float32_where_places_repeat(
    dtype: torch.dtype, index: Any, unordered: bool
) -> None:
    with UnorderedSums() as sums:
        torch.zeros(3, 3, dtype=dtype, requires_grad=True)[index].sum().backward()
    assert bool(sums.found) is unordered
