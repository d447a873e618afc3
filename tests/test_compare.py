"""dimred compare: what differs between two runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome
from figures import change, change_config, folders


@pytest.fixture
def pair(runs: Path) -> tuple[Path, Path]:
    """Two runs of SNIP, with masks that are known by hand."""
    one, other = folders(runs, "snip-s0.9-*")
    masks = [
        {"fc1.weight": np.array([[1, 1, 0, 0], [0, 0, 1, 1]], bool)},
        {"fc1.weight": np.array([[1, 0, 1, 0], [0, 0, 1, 1]], bool)},
    ]
    for run, arrays in zip((one, other), masks, strict=True):
        np.savez_compressed(run / "masks.npz", **arrays)  # type: ignore[arg-type]
    return one, other


def found(dimred: Callable[..., Outcome], *runs: Path) -> dict[str, Any]:
    outcome = dimred("compare", *map(str, runs), "--json")
    assert outcome.code == 0, outcome.err
    result: dict[str, Any] = json.loads(outcome.out)
    return result


def test_every_kind_of_difference_has_its_part(
    dimred: Callable[..., Outcome], pair: tuple[Path, Path]
) -> None:
    one, other = pair
    change_config(other, "examples: 128", "examples: 64")
    change_config(other, "val_fraction: 0.1", "val_fraction: 0.2")
    change(one, test_accuracy=0.5, dim=400, commit="aaa", inputs={"mask": "1f"}, training_flops=8)
    change(other, test_accuracy=0.75, dim=300, commit="bbb", inputs={"mask": "2e"})
    compared = found(dimred, one, other)
    assert compared["configuration"] == {"method.examples": [128, 64], "seed": [0, 1]}
    assert compared["data"] == {"dataset.val_fraction": [0.1, 0.2], "inputs.mask": ["1f", "2e"]}
    assert compared["versions"] == {"commit": ["aaa", "bbb"]}
    assert compared["numbers"]["test_accuracy"] == [0.5, 0.75]
    assert compared["numbers"]["training_flops"][0] == 8
    assert "total" not in compared["numbers"] and "seed" not in compared["numbers"]
    assert compared["masks"]["layers"]["fc1.weight"] == {
        "overlap": 0.6,
        "both": 3,
        "only_first": 1,
        "only_second": 1,
        "total": 8,
    }
    lines = [line.split() for line in dimred("compare", str(one), str(other)).out.splitlines()]
    assert ["test_accuracy", "0.5", "0.75", "+0.25", "1.5"] in lines
    assert ["dim", "400", "300", "-100", "0.75"] in lines
    assert ["method.examples", "128", "64"] in lines


def test_a_run_does_not_differ_from_itself(
    dimred: Callable[..., Outcome], pair: tuple[Path, Path]
) -> None:
    out = dimred("compare", str(pair[0]), str(pair[0])).out
    assert out.endswith("no difference in configuration, data, versions, numbers\n")
    assert "1.0000" in out


def test_runs_without_result_or_with_other_layers_are_compared_as_far_as_possible(
    dimred: Callable[..., Outcome], pair: tuple[Path, Path]
) -> None:
    one, other = pair
    (other / "result.json").unlink()
    np.savez_compressed(other / "masks.npz", other=np.ones(3, bool))
    compared = found(dimred, one, other)
    assert [run["state"] for run in compared["runs"]] == ["done", "unfinished"]
    assert compared["masks"] is None and "different layers" in compared["no_masks"]
    assert not compared["numbers"] and not compared["versions"]
    out = dimred("compare", str(one), str(other)).out
    assert "unfinished (interrupted, or still running)" in out and "masks: not compared" in out
    assert "\nB is not finished: it has no numbers\n" in out and "absent" not in out
    assert "versions" not in out


def test_a_folder_that_is_no_run_is_refused(
    dimred: Callable[..., Outcome], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    outcome = dimred("compare", str(pair[0]), str(tmp_path))
    assert outcome.code == 1 and f"{tmp_path} is not a run" in outcome.err
    assert "no folder" in dimred("compare", str(pair[0]), "nowhere").err
