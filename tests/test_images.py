"""A user's own images: names of splits, classes, channels, depths, arrays, and errors."""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dimred.data import imagefolder
from dimred.data.memory import Examples, Memory
from dimred.errors import UserError

OPTIONS: dict[str, Any] = {
    "name": "folder", "val_fraction": 0.0, "resize": None, "channels": None, "in_memory": True,
    "workers": 0, "mean": [0.0] * 3, "std": [1.0] * 3, "crop_padding": 0, "flip": False,
    "skip_corrupted": False,
}  # fmt: skip
PLAIN_GREY = {"mean": [0.0], "std": [1.0]}
STREAM = {**OPTIONS, "in_memory": False, "resize": 4}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMRED_CACHE", str(tmp_path_factory.mktemp("cache")))


def put(
    folder: Path, pixels: Any = 0, *, n: int = 2, suffix: str = "png", mode: str = "RGB"
) -> None:
    """n images of one value, or of an array."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        given = isinstance(pixels, np.ndarray)
        image = Image.fromarray(pixels) if given else Image.new(mode, (4, 4), pixels)
        image.save(folder / f"{i}.{suffix}")


def read(path: Path, **changes: Any) -> Any:
    return imagefolder(path=str(path), **{**OPTIONS, **changes})


# Splits


@pytest.mark.parametrize(
    "train", ["Train", "TRAINING", "train_set", "training-set", "Train Images", "traindata"]
)
@pytest.mark.parametrize("test", ["test", "Testing", "TEST_SET"])
def test_the_usual_names_mean_splits_and_not_classes(tmp_path: Path, train: str, test: str) -> None:
    for label in "abc":
        put(tmp_path / train / label, n=3)
        put(tmp_path / test / label, n=1)
    for data in (read(tmp_path), imagefolder(path=str(tmp_path), **STREAM)):
        assert (data.classes, data.sizes) == (3, {"train": 9, "val": 0, "test": 3})


@pytest.mark.parametrize("val", ["val", "valid", "Validation", "dev", "EVAL"])
@pytest.mark.parametrize("kind", [OPTIONS, STREAM])
def test_a_validation_folder_is_the_validation_split_and_without_test_the_test_set(
    tmp_path: Path, val: str, kind: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    for label in "ab":
        put(tmp_path / "train" / label, n=10)
        put(tmp_path / val / label, n=3)
    options = {**kind, "val_fraction": 0.2}
    assert imagefolder(path=str(tmp_path), **options).sizes == {"train": 16, "val": 4, "test": 6}
    assert f"{val}/ is the test set" in caplog.text
    for label in "ab":
        put(tmp_path / "test" / label, n=1)
    for _ in range(2):  # decoded, and remembered
        caplog.clear()
        assert imagefolder(path=str(tmp_path), **options).sizes == {
            "train": 20,
            "val": 6,
            "test": 2,
        }
        assert f"{val}/ is the validation split" in caplog.text


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for label in ("train", "car", "bus"):
        put(tmp_path / label, n=5)
    assert read(tmp_path).classes == 3


def test_folders_and_images_that_are_not_used_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for label in "ab":
        put(tmp_path / "set/train" / label, n=5)
    put(tmp_path / "set/sample")
    put(tmp_path / "set/test")
    assert read(tmp_path).sizes == {"train": 8, "val": 0, "test": 2}
    assert "sample/ is neither train, val nor test" in caplog.text
    assert "the images in test/ are in no class folders" in caplog.text


def test_folders_that_can_be_read_in_two_ways_are_refused(tmp_path: Path) -> None:
    for split in ("train", "training", "valid"):
        for label in "ab":
            put(tmp_path / "one" / split / label)
    for split in ("val", "test"):
        put(tmp_path / "two" / split / "a")
    for split in ("train", "test"):
        put(tmp_path / "three" / split)
    problems = {
        "one": "train/ and training/, which both mean train",
        "two": "no train/",
        "three": "0 class folders",
    }
    for name, problem in problems.items():
        with pytest.raises(UserError, match=problem):
            read(tmp_path / name)


# Classes and files


@pytest.mark.parametrize("suffix", ["gif", "jfif", "JPG", "tga"])
def test_a_class_of_less_usual_files_is_a_class(tmp_path: Path, suffix: str) -> None:
    put(tmp_path / "a", n=5)
    put(tmp_path / "b", n=5, suffix=suffix)
    assert read(tmp_path).classes == 2


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("file", [None, "0.heic", "deeper/0.txt"])
def test_a_class_without_images_is_an_error(
    tmp_path: Path, archive: bool, file: str | None
) -> None:
    for label in "ac":
        put(tmp_path / "set" / label)
    (tmp_path / "set/b/deeper").mkdir(parents=True)
    if file:
        (tmp_path / "set/b" / file).write_bytes(b"x")
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(tmp_path / "set", "set")
    with pytest.raises(UserError, match=r"class folders \['b'\] .*have no image"):
        read(tmp_path / ("set.tar" if archive else "set"))


@pytest.mark.parametrize("kind", [OPTIONS, STREAM])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, kind: dict[str, Any]) -> None:
    put(tmp_path / "a")
    put(tmp_path / "b")
    os.mkfifo(tmp_path / "b/x.png")
    with pytest.raises(UserError, match=r"b/x\.png is a FIFO"):
        imagefolder(path=str(tmp_path), **kind)


@pytest.mark.parametrize("kind", [OPTIONS, STREAM])
def test_an_empty_test_part_is_an_error(tmp_path: Path, kind: dict[str, Any]) -> None:
    put(tmp_path / "a", n=1)
    put(tmp_path / "b", n=1)  # a fifth of two is none
    with pytest.raises(UserError, match=r"no test examples \(2 train, 0 val, 0 test\)"):
        imagefolder(path=str(tmp_path), **kind)


# Channels


@pytest.mark.parametrize("kind", [OPTIONS, STREAM])
def test_images_have_the_channels_that_they_have_or_those_asked_for(
    tmp_path: Path, kind: dict[str, Any]
) -> None:
    for label in "ab":
        put(tmp_path / "grey" / label, 100, n=5, mode="L")
        put(tmp_path / "mixed" / label, (200, 100, 0), n=5)
    put(tmp_path / "mixed/a", 100, n=3, mode="L")
    for name, channels, expected in (
        ("grey", None, 1),
        ("mixed", None, 3),
        ("grey", 3, 3),
        ("mixed", 1, 1),
    ):
        changes = {"mean": [0.0] * expected, "std": [1.0] * expected, "channels": channels}
        data = imagefolder(path=str(tmp_path / name), **{**kind, **changes})
        images = torch.cat([images for images, _ in data.eval_batches("train")])
        assert data.shape[0] == images.shape[1] == expected
        if name == "grey":
            assert torch.allclose(images, torch.full_like(images, 100 / 255))
    # 0.299 * 200 + 0.587 * 100 = 118.5, the luminance of (200, 100, 0)
    assert {round(value * 255) for value in images.unique().tolist()} in ({100, 118}, {100, 119})


# Depths


@pytest.mark.parametrize("file", ["uint16.png", "uint16.tif", "int32.tif", "float32.tif"])
def test_deep_images_are_scaled_by_the_range_of_all(tmp_path: Path, file: str) -> None:
    kind, suffix = file.split(".")
    ramp = np.zeros((4, 4))
    ramp[0] = [0, 1000, 2000, 4000]
    ramp = ramp / 4000 if kind == "float32" else ramp
    put(tmp_path / "a", ramp.astype(kind), n=5, suffix=suffix)
    put(tmp_path / "b", (ramp / 2).astype(kind), n=5, suffix=suffix)
    data = read(tmp_path, **PLAIN_GREY)
    images, labels = next(data.eval_batches("train"))
    assert data.shape == (1, 4, 4)
    # 255 * 0.25 = 63.75, and so on
    for label, row in ((0, [0, 64, 128, 255]), (1, [0, 32, 64, 128])):
        assert (images[labels == label][:, 0, 0] * 255).round().tolist() == [row] * 4
    assert read(tmp_path, channels=3).shape == (3, 4, 4)
    assert read(tmp_path, resize=2, **PLAIN_GREY).shape == (1, 2, 2)


def test_depths_that_cannot_be_scaled_are_refused(tmp_path: Path) -> None:
    deep = np.full((4, 4), 4000, np.uint16)
    for name, other in (
        ("mixed", np.zeros((4, 4), np.uint8)),
        ("nan", np.full((4, 4), np.nan, np.float32)),
    ):
        put(tmp_path / name / "a", deep, suffix="tif")
        put(tmp_path / name / "b", other, suffix="tif")
    for name, problem in (("mixed", "no common scale"), ("nan", "infinite or NaN")):
        with pytest.raises(UserError, match=problem):
            read(tmp_path / name)
    put(tmp_path / "deep/a", deep, n=5)
    put(tmp_path / "deep/b", deep, n=5)
    with pytest.raises(UserError, match=r"deeper than 8 bits.*in_memory=true"):
        list(
            imagefolder(path=str(tmp_path / "deep"), **{**STREAM, **PLAIN_GREY}).eval_batches(
                "train"
            )
        )


# Arrays


@dataclass(kw_only=True)
class Own(Memory):
    images: Any
    labels: Any

    name = "own"

    def read(self) -> tuple[Examples, ...]:
        both = Examples(self.images, self.labels)
        return both, both, both


def own(images: Any, labels: Any, **changes: Any) -> Own:
    usual = {
        "val_fraction": 0.0,
        "resize": None,
        "mean": None,
        "std": None,
        "crop_padding": 0,
        "flip": False,
    }
    return Own(images=images, labels=labels, **{**usual, **changes})


GREY = np.random.default_rng(0).random((6, 1, 4, 4))
LABELS = np.array([0, 1, 2, 0, 1, 2])


def test_floating_point_images_are_taken_as_they_are() -> None:
    values = torch.from_numpy(GREY * 7 - 3)
    data = own(values, LABELS)
    images, _ = next(data.eval_batches("train"))
    expected = (values - values.mean()) / values.std(correction=0)
    assert torch.allclose(images, expected.float(), atol=1e-6)
    assert torch.equal(images, next(data.eval_batches("train"))[0])  # reading changes nothing
    flipped = own(values, LABELS, flip=True, crop_padding=1, mean=[0.0], std=[1.0])
    batches = [images for images, _ in flipped.train_batches(6, 0, 0)]
    assert torch.cat(batches).shape == (6, 1, 4, 4)
    mirrored = own(values, LABELS, flip=True, mean=[0.0], std=[1.0])
    sums = (
        torch.cat([images for images, _ in mirrored.train_batches(6, 0, 0)]).double().sum((1, 2, 3))
    )
    assert torch.allclose(sums.sort().values, values.sum((1, 2, 3)).sort().values, atol=1e-4)


@pytest.mark.parametrize("kind", [np.int64, np.uint16, np.int32, np.uint8])
def test_whole_numbers_up_to_255_are_pixels_of_8_bits(kind: type) -> None:
    pixels = np.full((6, 4, 4), 51).astype(kind)
    images, _ = next(own(pixels, LABELS, mean=[0.0], std=[1.0]).eval_batches("test"))
    assert images.shape == (6, 1, 4, 4) and torch.allclose(images, torch.tensor(0.2))


@pytest.mark.parametrize("labels", [
    LABELS.astype(np.int32), LABELS.astype(np.float32), LABELS[:, None],
    LABELS[:, None].astype(np.uint8), list(LABELS),
])  # fmt: skip
def test_labels_of_any_whole_type_are_labels(labels: Any) -> None:
    data = own(GREY, labels)
    assert data.classes == 3
    found = next(data.eval_batches("val"))[1]
    assert found.dtype == torch.int64 and found.tolist() == LABELS.tolist()


@pytest.mark.parametrize(("images", "labels", "problem"), [
    ((GREY * 4095).astype(np.uint16), LABELS, r"uint16 with values from \d+ to \d{4}"),
    (GREY * np.nan, LABELS, "infinite or NaN"),
    (GREY, LABELS - 1, "the label -1"),
    (GREY, LABELS + 0.5, r"the label 0\.5"),
    (GREY, np.eye(6), r"argmax\(1\)"),
    (GREY, LABELS[:5], r"labels of shape \(5,\)"),
    (GREY[:0], LABELS[:0], "no train examples"),
])  # fmt: skip
def test_arrays_that_are_not_clear_are_refused(images: Any, labels: Any, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        own(images, labels)


def test_labels_with_gaps_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    assert own(GREY, LABELS * 2).classes == 5
    assert "no training example has 1, 3: the model has unused outputs" in caplog.text
