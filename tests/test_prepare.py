"""`dimred data`: shards of reduced images are written once, resumed after a kill, and checked."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, Outcome, until
from PIL import Image

from dimred.data import prepare, webdataset
from dimred.data.shards import shards
from dimred.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Class folders with 12 train and 4 test images of 60 x 40 pixels."""
    noise = np.random.default_rng(0)
    for name, count in (("train/a", 7), ("train/b", 5), ("test/a", 2), ("test/b", 2)):
        folder = tmp_path / "source" / name
        folder.mkdir(parents=True)
        for i in range(count):
            pixels = noise.integers(0, 256, (4, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((60, 40)).save(folder / f"{i}.jpg")
    return tmp_path / "source"


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "IN_A_SHARD", 5)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.usefixtures("small_shards")
def test_shards_hold_the_reduced_images_of_all_splits_in_order(
    source: Path, tmp_path: Path
) -> None:
    for jobs in (0, 2):
        made = prepare_all(source, tmp_path / f"{jobs}", jobs)
        assert [each.name for each in made] == [
            *("train-00000.tar", "train-00001.tar", "train-00002.tar", "test-00000.tar"),
        ]
    assert content(tmp_path / "0") == content(tmp_path / "2")
    encoded, layout, _ = shards(tmp_path / "0")
    assert np.bincount(layout.train.labels).tolist() == [7, 5] and len(layout.test.labels) == 4
    for i, position in enumerate(layout.train.positions):
        label, number = ("a", i) if i < 7 else ("b", i - 7)
        whole = Image.open(source / f"train/{label}/{number}.jpg")
        found = Image.open(io.BytesIO(encoded.content(int(position))))
        assert found.size == (24, 16)  # of 60 x 40
        difference = np.asarray(found, float) - np.asarray(whole.resize((24, 16)), float)
        assert np.abs(difference).mean() < 12


def prepare_all(source: Path, target: Path, jobs: int = 0) -> list[prepare.Written]:
    from dimred.data.sources import collection_at

    found = collection_at(str(source))
    return list(prepare.Preparation(found, target, 16, 90, False).write(jobs))


def test_small_images_are_copied_as_they_are(source: Path, dimred: Callable[..., Outcome]) -> None:
    target = source.parent / "target"
    code, out, _ = dimred("data", "prepare", source, target, "--size", "40", "--jobs", "0")
    assert code == 0 and "images: 16, shards: 2, size:" in out
    with tarfile.open(target / "test-00000.tar") as tar:
        member = tar.extractfile("00000002.jpg")
        assert member and member.read() == (source / "test/b/0.jpg").read_bytes()
    assert dimred("data", "check", target)[:2] == (
        0,
        f"{target}: shards: 2, missing or damaged: 0\n",
    )


def test_a_killed_preparation_resumes_and_ends_with_the_same_bytes(
    tmp_path: Path, source: Path
) -> None:
    many = tmp_path / "many"
    for split in ("train", "test"):
        for label in "ab":
            (many / split / label).mkdir(parents=True)
            for i in range(6):
                shutil.copy(source / "train/a/0.jpg", many / split / label / f"{i}.jpg")
    target, whole = tmp_path / "target", tmp_path / "whole"
    arguments = ("data", "prepare", many, target, "--size", "16", "--jobs", "2")
    killed = Command(arguments, tmp_path / "killed", before=four_shards_of_two)
    until(lambda: len(recorded(target)) == 4)
    os.kill(killed.pid, signal.SIGKILL)
    killed.process.join(60)
    done = {name: (target / name).stat().st_mtime_ns for name in recorded(target)}
    with pytest.raises(UserError, match=r"lacks 8 of 12 shards"):
        shards(target)
    for name in ("train-00005.tar", "shards.json"):
        (target / f".{name}.999999").write_bytes(b"cut short")
    assert Command(arguments, tmp_path / "again", before=shards_of_two).wait().code == 0
    arguments = ("data", "prepare", many, whole, "--size", "16", "--jobs", "0")
    assert Command(arguments, tmp_path / "once", before=shards_of_two).wait().code == 0
    assert content(target) == content(whole)
    for name, written in done.items():  # and not again
        assert (target / name).stat().st_mtime_ns == written


def recorded(target: Path) -> dict[str, Any]:
    try:
        return json.loads((target / "shards.json").read_bytes())["shards"]
    except FileNotFoundError:
        return {}


def shards_of_two() -> None:
    prepare.IN_A_SHARD = 2


def four_shards_of_two() -> None:
    """With four shards recorded, wait to be killed: in this process, as its workers may be others
    than forks of it, which do not see what is changed here."""
    shards_of_two()
    write = prepare.manifest.write_manifest

    def write_and_wait(target: Path, found: Any) -> None:
        write(target, found)
        if len(found["shards"]) == 4:
            time.sleep(100)

    prepare.manifest.write_manifest = write_and_wait


@pytest.mark.usefixtures("small_shards")
def test_missing_and_damaged_shards_are_named(
    source: Path, tmp_path: Path, dimred: Callable[..., Outcome]
) -> None:
    target = tmp_path / "target"
    prepare_all(source, target)
    whole = (target / "train-00001.tar").read_bytes()
    (target / "train-00001.tar").write_bytes(whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])
    (target / "test-00000.tar").unlink()
    code, out, _ = dimred("data", "check", target)
    assert code == 1
    assert f"{target}/train-00001.tar: damaged\n{target}/test-00000.tar: missing\n" in out
    with pytest.raises(UserError, match=r"lacks 1 of 4 shards \(test-00000.tar\)"):
        shards(target)
    prepare_all(source, target)
    assert "missing or damaged: 1" in dimred("data", "check", target).out  # by size, it is whole
    (target / "train-00001.tar").unlink()
    prepare_all(source, target)
    assert dimred("data", "check", target).code == 0


def test_corrupted_images_end_the_preparation_or_are_left_out(
    source: Path, tmp_path: Path, dimred: Callable[..., Outcome]
) -> None:
    cut = source / "train/a/3.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    arguments = ("data", "prepare", source, tmp_path / "target", "--size", "16", "--jobs", "0")
    code, _, err = dimred(*arguments)
    assert code == 1 and f"{cut} is damaged" in err
    shutil.rmtree(tmp_path / "target")
    code, out, err = dimred(*arguments, "--skip-corrupted")
    assert code == 0 and "corrupted and left out: 1" in out and f"{cut} is corrupted" in err
    assert np.bincount(shards(tmp_path / "target").layout.train.labels).tolist() == [6, 5]


def test_prepared_shards_are_trained_on(source: Path, tmp_path: Path) -> None:
    prepare_all(source, tmp_path / "target")
    data = webdataset(
        name="x", path=str(tmp_path / "target"), in_memory=False, workers=0, val_fraction=0.0,
        resize=8, channels=None, mean=None, std=None, crop_padding=0, flip=True,
        skip_corrupted=False,
    )  # fmt: skip
    assert data.sizes == {"train": 12, "val": 0, "test": 4} and data.shape == (3, 8, 8)
    assert next(data.train_batches(12, 0, 0))[0].shape == (12, 3, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("prepare", "SOURCE"), "usage: dimred data prepare SOURCE TARGET"),
        (("prepare", "SOURCE", "SOURCE"), "is the source, too"),
        (("prepare", "SOURCE", "NEW", "--size", "0"), "--size=0 is not allowed"),
        (
            ("prepare", "SOURCE", "DONE", "--size", "32"),
            "with size=16; asked for is size=32",
        ),
        (("prepare", "SOURCE", "NEW", "--jobs=-1"), "--jobs=-1 is not allowed"),
        (("check", "SOURCE"), "has no shards.json"),
        (("chekc", "SOURCE"), "Did you mean 'check'"),
    ],
)
def test_what_cannot_be_prepared_is_a_user_error(
    source: Path, tmp_path: Path, dimred: Callable[..., Outcome], arguments: tuple[str, ...],
    problem: str,
) -> None:  # fmt: skip
    prepare_all(source, tmp_path / "done")
    places = {"SOURCE": source, "DONE": tmp_path / "done", "NEW": tmp_path / "new"}
    code, _, err = dimred("data", *(places.get(each, each) for each in arguments))
    assert code == 1 and problem in err
