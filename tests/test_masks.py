"""Masks of runs: shown, compared and trained again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome, compose, result_of

from dimred.errors import UserError
from dimred.methods.from_mask import FromMask
from dimred.net import Net
from dimred.runs.identity import describe
from dimred.runs.nets import build_net, load_net
from dimred.storage.masks import content_of, overlap, read_masks


def save(path: Path, **masks: np.ndarray) -> Path:
    """A run's folder with these masks."""
    path.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path / "masks.npz", **masks)  # type: ignore[arg-type]
    return path


def bits(text: str) -> np.ndarray:
    return np.array([c == "1" for c in text.replace(" ", "")]).reshape(-1, len(text.split()[0]))


ONE = {"fc1.weight": bits("1100 0011"), "fc2.weight": bits("10")}
OTHER = {"fc1.weight": bits("1010 0011"), "fc2.weight": bits("01")}


# -- dimred mask --------------------
def test_overlap_is_intersection_over_union() -> None:
    assert overlap(ONE["fc1.weight"], OTHER["fc1.weight"]) == 3 / 5
    assert (
        overlap(ONE["fc2.weight"], OTHER["fc2.weight"]) == 0
        and overlap(bits("00"), bits("00")) == 1
    )


def test_diff_compares_layers_and_all_of_them(
    tmp_path: Path, dimred: Callable[..., Outcome]
) -> None:
    runs = [str(save(tmp_path / name, **masks)) for name, masks in (("a", ONE), ("b", OTHER))]
    found = json.loads(dimred("mask", "diff", *runs, "--json").out)
    assert found["layers"]["fc1.weight"] == {
        "overlap": 0.6,
        "both": 3,
        "only_first": 1,
        "only_second": 1,
        "total": 8,
    }
    assert found["overlap"] == 3 / 7 and (
        found["both"],
        found["only_first"],
        found["only_second"],
    ) == (3, 2, 2)
    lines = dimred("mask", "diff", *runs).out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["fc1.weight", "0.6000"],
        ["fc2.weight", "0.0000"],
        ["all", "0.4286"],
    ]


def test_show_counts_what_is_trained_and_what_is_not_zero(
    train: Callable[..., Path], dimred: Callable[..., Outcome]
) -> None:
    run = train("recipe.steps=2", "method=freezenet", "sparsity=0.9")
    shown, result = json.loads(dimred("mask", "show", str(run), "--json").out), result_of(run)
    assert (shown["trained"], shown["total"], shown["nonzero"]) == (
        result["dim"],
        result["total"],
        result["total"],
    )
    assert {name: layer["trained"] for name, layer in shown["layers"].items()} == {
        name: layer["trained"] for name, layer in result["layers"].items()
    }
    assert (
        "all" in dimred("mask", "show", str(run)).out
        and "█" in dimred("mask", "show", str(run)).out
    )


def test_a_mask_is_shown_without_result_and_without_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from dimred.cli.main import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    run = str(save(tmp_path / "a", **ONE))
    for arguments in (["show", run], ["diff", run, run]):
        done = subprocess.run(
            [sys.executable, "-c", program, "mask", *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0 and "fc1.weight" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "usage: dimred mask show RUN"),
        ("shw .", "Did you mean 'show'"),
        ("show", "got 0 runs"),
        ("diff {a}", "got 1 run"),
        ("show nowhere", "no masks.npz in nowhere: there is no such folder"),
        ("show {empty}", "that is no run"),
        ("show {ended}", "Remove the folder and give the run's command again"),
        ("show {a} --jsn", "Did you mean '--json'"),
        ("show {damaged}", "is damaged, or holds no masks"),
        ("show {packed}", "is damaged, or holds no masks"),
        ("show {pickled}", "(it contains other things than arrays of numbers)"),
        ("show {numbers}", "fc1.weight has the value 0.5. A mask is 1 where"),
        ("show {text}", "fc1.weight is <U1. A mask is"),
        ("diff {a} {fewer}", "different layers: only {a} has fc2.weight"),
        ("diff {fewer} {a}", "only {a} has fc2.weight"),
        (
            "diff {a} {wider}",
            "fc1.weight is 2x4 in {a}, and 4x4 in {wider}. Compare runs of the same model",
        ),
    ],
)
def test_mistakes_are_answered(
    arguments: str, message: str, tmp_path: Path, dimred: Callable[..., Outcome]
) -> None:
    save(tmp_path / "a", **ONE)
    save(tmp_path / "fewer", **{"fc1.weight": ONE["fc1.weight"]})
    save(tmp_path / "wider", **{**ONE, "fc1.weight": bits("1100 0011 1111 0000")})
    save(tmp_path / "numbers", **{"fc1.weight": np.array([1, 0, 0.5])})
    save(tmp_path / "text", **{"fc1.weight": np.array(["1"])})
    (tmp_path / "empty").mkdir()
    (save(tmp_path / "damaged", **ONE) / "masks.npz").write_bytes(
        (tmp_path / "a/masks.npz").read_bytes()[:100]
    )
    content = (tmp_path / "a/masks.npz").read_bytes()
    last = content.rindex(b"PK\1\2") + 10  # how the last array is packed
    (save(tmp_path / "packed", **ONE) / "masks.npz").write_bytes(
        content[:last] + b"\1" + content[last + 1 :]
    )
    (save(tmp_path / "ended", **ONE) / "masks.npz").unlink()
    (tmp_path / "ended/result.json").write_text("{}")
    save(tmp_path / "pickled", **{"fc1.weight": np.array([{}], dtype=object)})
    names = {path.name: str(path) for path in tmp_path.iterdir() if not path.name.startswith(".")}
    outcome = dimred("mask", *arguments.format(**names).split())
    assert (
        outcome.code == 1
        and message.format(**names) in outcome.err
        and outcome.err.count("\n") == 1
    ), outcome.err


# -- method=from_mask --------------------
def test_a_run_trains_the_weights_of_another_runs_mask(train: Callable[..., Path]) -> None:
    first = train("recipe.steps=3", "method=rigl", "sparsity=0.9", "method.update_every=1")
    again = train("recipe.steps=3", "method=from_mask", f"mask={first}", "seed=1")
    one, other = read_masks(first), read_masks(again)
    assert (
        all((one[name] == other[name]).all() for name in one) and result_of(again)["density"] <= 0.1
    )
    net, fresh = load_net(again), build_net(compose("seed=1"), (1, 8, 8), 10)
    for name, w in net.weights.items():
        moved = w.dense().view(w.param.shape) != fresh.dense_weights()[name]
        assert not w.dense()[~w.trained()].any() and moved[torch.from_numpy(one[name])].any()


def test_others_read_their_initial_value_if_asked_to(train: Callable[..., Path]) -> None:
    first = train("recipe.steps=3", "method=snip", "sparsity=0.9")
    frozen = train("recipe.steps=3", "method=from_mask", f"method.mask={first}", "method.base=init")
    assert result_of(frozen)["density"] == 1 and result_of(frozen)["dim"] == result_of(first)["dim"]
    whole = load_net(train("recipe.steps=3", "method=freezenet", "sparsity=0.9")).state_dict()
    assert all(
        torch.equal(value, whole[name]) for name, value in load_net(frozen).state_dict().items()
    )


def of(mask: Path) -> str:
    return json.dumps(describe(compose("method=from_mask", f"method.mask={mask}")))


def test_a_run_is_identified_by_what_its_mask_holds_and_not_by_where_it_lies(
    tmp_path: Path,
) -> None:
    a, b = save(tmp_path / "a", **ONE), save(tmp_path / "b", **OTHER)
    moved = shutil.copytree(a, tmp_path / "moved")
    assert of(a) == of(moved) == of(a / "masks.npz") != of(b) and str(tmp_path) not in of(a)
    assert content_of(read_masks(a)) in of(a)
    save(a, **OTHER)
    assert of(a) == of(b)
    flat = {**ONE, "fc1.weight": ONE["fc1.weight"].reshape(1, 8)}
    assert content_of(flat) != content_of(ONE)  # shapes count, too


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32])
def test_zeros_and_ones_of_any_type_are_a_mask(dtype: type, tmp_path: Path) -> None:
    numbers = {name: mask.astype(dtype) for name, mask in ONE.items()}
    masks = read_masks(save(tmp_path / "numbers", **numbers))
    for name, mask in masks.items():
        assert mask.dtype == bool and (mask == ONE[name]).all()
    assert of(tmp_path / "numbers") == of(save(tmp_path / "bool", **ONE))


def test_a_mask_of_another_network_is_refused(tmp_path: Path) -> None:
    net = Net(torch.nn.Sequential(torch.nn.Linear(4, 2)))
    for masks, message in (
        (ONE, "the mask has no 0.weight, and 2 more"),
        ({"0.weight": bits("11")}, "0.weight is 1x2 in the mask and 2x4 in this network"),
        ({"0.weight": ONE["fc1.weight"], "x": bits("1")}, "this network covers no x"),
    ):
        with pytest.raises(UserError, match=message):
            FromMask(mask=str(save(tmp_path / "a", **masks)), base="zero").run(net, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "method.mask has no value of its own"),
        ("mask=nowhere", "no masks.npz in nowhere: there is no such folder"),
        ("method.base=held mask=a", "method.base=held is not allowed. It must be zero or init"),
    ],
)
def test_a_mask_must_be_named_and_be_there(
    arguments: str, message: str, tmp_path: Path, dimred: Callable[..., Outcome]
) -> None:
    outcome = dimred("train", "method=from_mask", *arguments.split(), f"outputs={tmp_path}")
    assert outcome.code == 1 and message in outcome.err and "Traceback" not in outcome.err


def test_the_conformance_suite_says_why_it_does_not_apply(dimred: Callable[..., Outcome]) -> None:
    outcome = dimred("check", "from_mask")
    assert (
        outcome.code == 1
        and "from_mask cannot be checked: it needs the run of another method" in outcome.err
    )


def test_a_mask_is_of_the_weights_that_its_run_covered(train: Callable[..., Path]) -> None:
    first = train("recipe.steps=2", "method=snip", "sparsity=0.9", "exclude=[fc3]")
    again = train("recipe.steps=2", "method=from_mask", f"mask={first}", "exclude=[fc3]")
    assert set(read_masks(again)) == {"fc1.weight", "fc2.weight"}
