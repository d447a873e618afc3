"""The model of docs/scale.md, on runs that can be counted by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import ROOT
from figures import folders

from dimred.report.compose import composed
from dimred.report.runs import read_run

sys.path.insert(0, str(ROOT / "scripts/docs"))

import run_bytes
import run_costs
import scale
from scale_check import bytes_in


@pytest.mark.parametrize(
    ("method", "rounds"),
    [
        ({"method": "snip"}, 1),
        # 0.8^10 = 0.107 and 0.8^11 = 0.086: pruned eleven times, trained once more
        ({"method": "imp", "sparsity": "0.9"}, 12),
        ({"method": "imp", "sparsity": "0.5", "method.prune_rate": "1"}, 2),
    ],
)
def test_a_run_trains_on_the_images_of_all_rounds(method: dict[str, str], rounds: int) -> None:
    """Digits: 1438 images less a tenth, in 20 batches of 64 an epoch."""
    description = composed({"dataset": "digits", "recipe.epochs": "3", **method})
    assert run_costs.images(description) == 3 * 20 * 64 * rounds


def test_a_measured_model_has_its_measured_rate_and_others_that_of_their_flops() -> None:
    def rate(model: str, dataset: str = "cifar10") -> float:
        found = run_costs.rate(composed({"dataset": dataset, "model": model, "recipe": "cifar"}))
        assert found is not None
        return float(found[0])

    assert rate("resnet20") == 33_900 and rate("vgg16") == 33_400
    # three blocks of 3, or 9, residual units: about 3 times the FLOPs
    assert 2.9 < rate("resnet20") / rate("resnet56") < 3.2
    assert rate("lenet5", "mnist") == rate("lenet300", "mnist") == 477_000
    assert run_costs.rate(composed({"dataset": "cifar10", "model": "vit"})) is None


def test_many_gpus_take_no_less_than_the_longest_run() -> None:
    row = scale.Row("name", 10, 0, 2e6, 3e12, hours=16.0, longest=1.0, kin="vgg16")
    assert scale.line(row, 2.5) == (
        "| name | 10 of 10 | 2 M | 3.0e+12 | 16 h | 120 min | 60 min | 40.00 | vgg16 |"
    )


def test_a_step_reduces_four_bytes_of_each_trained_number() -> None:
    """LeNet-300-100 on digits: 64 * 300 + 300 * 100 + 100 * 10 weights and 410 biases."""
    description = composed({"dataset": "digits", "method": "snip", "sparsity": "0.9"})
    assert run_bytes.tensors(description, sparse=False).reduced == 4 * (50_200 + 410)
    assert run_bytes.tensors(description).reduced == 4 * (5_020 + 410)


@pytest.mark.parametrize("name", ["snip-s0.9-seed0-*", "set-s0.5-seed1-*", "dense-seed0-*"])
def test_a_folder_has_about_the_predicted_bytes(name: str, trained: Path) -> None:
    (place,) = folders(trained, name)
    assert run_bytes.folder(read_run(place).description) == pytest.approx(bytes_in(place), rel=0.1)


def test_machines_of_eight_gpus_read_a_data_set_once_each() -> None:
    """1797 digits of 64 pixels: 115,008 bytes, read by two runs; on 64 GPUs by eight machines."""
    wanted = [composed({"dataset": "digits", "method": method}) for method in ("snip", "dense")]
    cells = scale.bytes_line("name", wanted, 3).split(" | ")
    assert cells[:2] == ["| name", "2 of 3"]
    assert cells[3:6] == ["230 kB", "115 kB", "920 kB"]
