"""Inputs of a run: changed images, weights, metrics and caches are detected, nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import Command, Outcome, result_of, steps_done, until
from PIL import Image
from toy import RECIPE, Blobs, Crash, Fragile, model

from dimred.data.files import remembered
from dimred.errors import UserError
from dimred.methods.reference_networks import Dense
from dimred.net import Net
from dimred.runs import inputs
from dimred.runs.inputs import difference, fingerprint, paths_in
from dimred.storage.folder import RunFolder
from dimred.training.loop import Train


# -- fingerprints --------------------
@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data/a").mkdir(parents=True)
    for name, content in (("a/0", b"zero"), ("a/1", b"one"), (".hidden", b"x")):
        (tmp_path / "data" / name).write_bytes(content)
    return tmp_path / "data"


@pytest.fixture(params=["content", "times"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Small folders are known by their content, large ones by names, sizes and times."""
    if request.param == "times":
        monkeypatch.setattr(inputs, "FEW", 1)
    yield request.param


@pytest.mark.usefixtures("by")
def test_changes_of_files_are_named(folder: Path) -> None:
    before = fingerprint(folder)
    assert difference(before, fingerprint(folder)) is None
    (folder / ".hidden").write_bytes(b"other")
    assert difference(before, fingerprint(folder)) is None
    (folder / "a/2").write_bytes(b"more")
    assert difference(before, fingerprint(folder)) == "2 files of 7 bytes then, 3 of 11 now"
    (folder / "a/2").unlink()
    (folder / "a/1").rename(folder / "a/2")
    assert difference(before, fingerprint(folder)) == "files have other names or sizes"
    (folder / "a/2").rename(folder / "a/1")
    assert difference(before, fingerprint(folder)) is None


def test_other_content_of_the_same_length_is_a_change(folder: Path, by: str) -> None:
    before = fingerprint(folder)
    (folder / "a/1").write_bytes(b"two")
    os.utime(folder / "a/1", (1, 1))
    expected = {"content": "its content is another", "times": "files were modified, by their times"}
    assert difference(before, fingerprint(folder)) == expected[by]


def test_touched_and_copied_files_are_the_same_as_far_as_that_can_be_known(
    folder: Path, by: str
) -> None:
    before, copy = fingerprint(folder), folder.with_name("copy")
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)  # at another time
    assert difference(before, fingerprint(copy)) is None
    os.utime(folder / "a/1", (1, 1))
    assert (difference(before, fingerprint(folder)) is None) == (by == "content")


def test_inputs_are_the_paths_among_the_values_that_exist(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    groups = {
        "dataset": {"name": "a", "path": "a", "data_dir": ".", "resize": None},
        "model": {"files": ["a/0", "none"], "pretrained": None, "hidden": [300, 100]},
        "basis": None,
    }
    assert paths_in(groups) == {"dataset.path": Path("a"), "model.files.0": Path("a/0")}


def test_a_choice_that_is_called_like_a_folder_is_no_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    groups = {
        "recipe": {"_target_": "dimred.training.recipe.Recipe", "optimizer": "a"},
        "model": {"_target_": "dimred.models.resnet", "init": "a", "pretrained": "a/1"},
    }
    assert paths_in(groups) == {"model.pretrained": Path("a/1")}


def test_an_input_that_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is a FIFO"):
        fingerprint(tmp_path / "pipe")


# -- runs --------------------
def put_images(folder: Path, value: int) -> None:
    for label in "ab":
        (folder / label).mkdir(parents=True, exist_ok=True)
        for i in range(10):
            Image.new("L", (4, 4), (value + 20 * i) % 256).save(folder / label / f"{i}.png")


@pytest.fixture
def arguments(tmp_path: Path) -> tuple[str, ...]:
    put_images(tmp_path / "images", 10)
    return (
        "train",
        "dataset=imagefolder",
        f"dataset.path={tmp_path / 'images'}",
        "dataset.workers=0",
        "dataset.in_memory=false",
        "dataset.resize=4",
        "method=dense",
        "model=mlp",
        "model.hidden=[4]",
        "recipe.batch_size=4",
        "recipe.lr=0.001",
        f"outputs={tmp_path / 'outputs'}",
    )


def test_a_finished_run_is_not_served_for_other_images(
    arguments: tuple[str, ...], dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    images, short = tmp_path / "images", (*arguments, "recipe.epochs=1")
    assert dimred(*short).code == 0
    (run,) = (tmp_path / "outputs/runs").glob("*/*/*")
    before = (run / "result.json").read_bytes()
    put_images(images, 11)
    code, _, err = dimred(*short)
    assert code == 1 and "dataset.path has changed" in err and str(run) in err and "outputs=" in err
    assert (run / "result.json").read_bytes() == before
    put_images(images, 10)
    assert "finished already" in dimred(*short).err
    images.rename(tmp_path / "aside")
    assert "finished already" in dimred(*short).err
    assert result_of(run)["inputs"]["dataset.path"]["files"] == 20


def test_an_interrupted_run_does_not_go_on_with_other_images(
    arguments: tuple[str, ...],
    dimred: Callable[..., Outcome],
    start: Callable[..., Command],
    tmp_path: Path,
) -> None:
    command = start(*arguments, "recipe.epochs=1000", "checkpoint_seconds=0")
    found = tmp_path / "outputs/runs"
    until(lambda: any(map(steps_done, found.glob("*/*/*"))))
    command.process.kill()
    command.process.join()
    (run,) = found.glob("*/*/*")
    put_images(tmp_path / "images", 11)
    code, _, err = dimred(*arguments, "recipe.epochs=1000", "checkpoint_seconds=0")
    assert code == 1 and "dataset.path has changed" in err
    assert steps_done(run) and not (run / "result.json").exists()


# -- other files --------------------
def attempt(folder: Path, last: int = -1) -> None:
    """Train a toy net, or resume it. Crash before step `last`."""
    with RunFolder(folder) as run_folder:
        net = Net(model(), seed=1)
        train = Train(net, Blobs(), RECIPE, folder=run_folder, observers=[Fragile(last)])
        Dense().run(net, train)


def test_metrics_that_were_altered_are_noticed(tmp_path: Path) -> None:
    for last in (10, 19):  # the second one is resumed itself
        with pytest.raises(Crash):
            attempt(tmp_path, last)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"phase": 0', '"phase": 1'))
    with pytest.raises(UserError, match=r"metrics.jsonl is damaged \(its lines have changed\)"):
        attempt(tmp_path)


def test_a_cache_that_is_altered_or_of_another_key_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIMRED_CACHE", str(tmp_path))
    made = []

    def make() -> dict[str, torch.Tensor]:
        made.append(len(made))
        return {
            "x": torch.full((8,), len(made), dtype=torch.uint8),
            "none": torch.empty(0, dtype=torch.uint8),
        }

    def value(key: str) -> int:
        return int(remembered(key, make)["x"][0])

    assert (value("one"), value("one"), value("two"), value("one")) == (1, 1, 2, 1)
    one, two = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    content = bytearray(one.read_bytes())
    content[-1] ^= 1
    one.write_bytes(content)
    assert (value("one"), value("one")) == (3, 3)
    shutil.copyfile(one, two)
    assert value("two") == 4
