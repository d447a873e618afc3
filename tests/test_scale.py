"""The model of docs/scale.md, on runs that can be counted by hand."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
from conftest import ROOT

from dimred.report.compose import composed


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scale", ROOT / "scripts/docs/scale.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("method", "rounds"),
    [
        ({"method": "snip"}, 1),
        # 0.8^10 = 0.107 and 0.8^11 = 0.086: pruned eleven times, trained once more
        ({"method": "imp", "sparsity": "0.9"}, 12),
        ({"method": "imp", "sparsity": "0.5", "method.prune_rate": "1"}, 2),
    ],
)
def test_a_run_trains_on_the_images_of_all_rounds(
    method: dict[str, str], rounds: int, scale: ModuleType
) -> None:
    """Digits: 1438 images less a tenth, in 20 batches of 64 an epoch."""
    description = composed({"dataset": "digits", "recipe.epochs": "3", **method})
    assert scale.images(description) == 3 * 20 * 64 * rounds


def test_a_measured_model_has_its_measured_rate_and_others_that_of_their_flops(
    scale: ModuleType,
) -> None:
    def rate(model: str, dataset: str = "cifar10") -> float:
        found = scale.rate(composed({"dataset": dataset, "model": model, "recipe": "cifar"}))
        assert found is not None
        return float(found[0])

    assert rate("resnet20") == 33_900 and rate("vgg16") == 33_400
    # three blocks of 3, or 9, residual units: about 3 times the FLOPs
    assert 2.9 < rate("resnet20") / rate("resnet56") < 3.2
    assert rate("lenet5", "mnist") == rate("lenet300", "mnist") == 477_000
    assert scale.rate(composed({"dataset": "cifar10", "model": "vit"})) is None


def test_many_gpus_take_no_less_than_the_longest_run(scale: ModuleType) -> None:
    row = scale.Row("name", 10, 0, 2e6, 3e12, hours=16.0, longest=1.0, kin="vgg16")
    assert scale.line(row, 2.5) == (
        "| name | 10 of 10 | 2 M | 3.0e+12 | 16 h | 120 min | 60 min | 40.00 | vgg16 |"
    )
