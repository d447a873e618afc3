"""Encoded images that are streamed: parts and their sizes, tar shards, indices, corrupted files."""

from __future__ import annotations

import io
import logging
import os
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_data import PLAIN, STREAM, everything, forking, same, tar_of
from torchvision.transforms.v2 import functional as vision

from dimred.data import crops, imagefolder, webdataset
from dimred.data.crops import Box, centre_box, random_box, square
from dimred.data.encoded import class_folders, names_below
from dimred.data.names import Names
from dimred.data.shards import shards
from dimred.data.share import Share
from dimred.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

SHARDS: dict[str, Any] = {
    **PLAIN, "name": "shards", "channels": 3, "in_memory": False, "workers": 0, "resize": 16,
    "skip_corrupted": False,
}  # fmt: skip


def ramp(width: int, height: int) -> Image.Image:
    """A smooth picture, which JPEG hardly changes."""
    across = np.linspace(0, 255, width)[None].repeat(height, 0)
    down = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    return Image.fromarray(np.stack([across, down, 255 - across], -1).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=95)
    return buffer.getvalue()


@pytest.fixture
def folders(pictures: Path, tmp_path: Path) -> Path:
    """Class folders that a test may change."""
    return Path(shutil.copytree(pictures, tmp_path / "folders"))


# -- parts of images --------------------
def test_a_random_part_is_the_first_that_lies_within_the_image() -> None:
    whole, half = 1.0, (0.5 - 0.08) / 0.92  # draws of an area
    # 500 * 375 pixels as a square have sides of 433; half of them, sides of 306
    sizes = [whole, 0.5, half, 0.5, *[0.0] * 16]
    assert random_box(500, 375, [0.5, 0.5, *sizes]) == Box(35, 97, 306, 306)
    assert random_box(500, 375, [0.0, 0.0, *sizes]) == Box(0, 0, 306, 306)
    assert random_box(500, 375, [1 - 1e-9, 1 - 1e-9, *sizes]) == Box(69, 194, 306, 306)
    # a width of 4/3 of the height: sides of sqrt(93750 * 4/3) and sqrt(93750 * 3/4)
    assert random_box(500, 375, [0, 0, half, 1.0, *[0.0] * 18]) == Box(0, 0, 265, 354)


def test_where_no_random_part_fits_it_is_the_largest_in_the_middle() -> None:
    assert random_box(1000, 100, [0.9, 0.9, *[1.0, 0.5] * 10]) == Box(0, 433, 100, 133)
    assert random_box(100, 1000, [0.9, 0.9, *[1.0, 0.5] * 10]) == Box(433, 0, 133, 100)


def test_evaluation_sees_seven_eighths_of_the_shorter_side() -> None:
    assert centre_box(512, 256) == Box(16, 144, 224, 224)
    assert centre_box(1, 1) == Box(0, 0, 1, 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_part_is_scaled_as_torchvision_scales_it(kind: str) -> None:
    content = encoded(ramp(100, 80), kind)
    whole = vision.pil_to_tensor(Image.open(io.BytesIO(content)).convert("RGB"))
    found = square(content, "x", lambda width, height: Box(10, 20, 50, 60), 40, 3)
    expected = vision.resized_crop(whole, 10, 20, 50, 60, [40, 40], antialias=True)
    difference = found.int() - expected.int()
    assert difference.abs().max() <= 1
    exact = square(content, "x", lambda width, height: Box(10, 20, 32, 32), 32, 3)
    assert torch.equal(exact, whole[:, 10:42, 20:52])


@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
def test_a_jpeg_is_decoded_no_larger_than_needed(
    shrink: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, decoded = encoded(ramp(400, 320)), list[tuple[int, int]]()
    crop = Image.Image.crop
    monkeypatch.setattr(
        Image.Image, "crop", lambda image, box: (decoded.append(image.size), crop(image, box))[1]
    )
    size = 256 // shrink
    part = square(content, "x", lambda width, height: Box(40, 80, 256, 256), size, 3)
    assert decoded == ([(400 // shrink, 320 // shrink)] if shrink > 1 else [])
    whole = vision.pil_to_tensor(Image.open(io.BytesIO(content)))
    expected = vision.resized_crop(whole, 40, 80, 256, 256, [size, size], antialias=True)
    assert (part.int() - expected.int()).abs().float().mean() < 2


def test_other_modes_become_colours_or_grey() -> None:
    for mode, kind in (("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG")):
        content = encoded(ramp(20, 20).convert(mode), kind)
        for channels, wanted in ((1, "L"), (3, "RGB")):
            whole = np.asarray(Image.open(io.BytesIO(content)).convert(wanted))
            found = square(content, "x", lambda width, height: Box(0, 0, 20, 20), 20, channels)
            assert np.array_equal(
                found.permute(1, 2, 0).numpy(), whole.reshape(20, 20, channels)
            ), (mode, wanted)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_the_same_without_simplejpeg(
    options: dict[str, Any], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, "JPEG", quality=70, **options)
    arguments = buffer.getvalue(), "x", lambda width, height: Box(3, 5, 20, 30), 20, len(mode)
    assert crops.decode_jpeg is not None, "of the extra dimred[jpeg]"
    faster = square(*arguments)
    monkeypatch.setattr(crops, "decode_jpeg", None)
    assert torch.equal(square(*arguments), faster)


# -- batches --------------------
def test_a_share_of_a_batch_has_the_bits_of_the_whole_batch(pictures: Path) -> None:
    data = imagefolder(path=str(pictures), **{**STREAM, "workers": 0})
    whole = list(data.train_batches(6, seed=1, epoch=2))
    for rank, part in enumerate((slice(0, 1), slice(1, 3), slice(3, 4), slice(4, 6))):
        shares = data.train_shares(Share(rank, 4), 6, seed=1, epoch=2)
        assert same(shares, ((images[part], labels[part]) for images, labels in whole))
    parts = [each for rank in range(4) for each in data.eval_shares(Share(rank, 4), "train")]
    (expected,) = data.eval_batches("train")
    assert torch.equal(torch.cat([images for images, _ in parts]), expected[0])


def test_streamed_images_are_mirrored_half_of_the_time(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / name).mkdir(parents=True)
        for i in range(50):
            ramp(16, 16).save(tmp_path / name / f"{i}.png")
    for flip, low, high in ((True, 30, 70), (False, 0, 0)):
        data = imagefolder(
            path=str(tmp_path), **{**STREAM, "workers": 0, "flip": flip, "val_fraction": 0.0}
        )
        images, _ = next(data.train_batches(100, seed=0, epoch=0))
        falling = images[:, 0, 8, 0] > images[:, 0, 8, -1]  # red grows from left to right
        assert low <= falling.sum() <= high
        images, _ = next(data.eval_batches("train"))
        assert (images[:, 0, 8, 0] < images[:, 0, 8, -1]).all()


# -- names of files --------------------
def test_names_are_strings_in_one_block() -> None:
    strings = ["a/0.png", "", "ä/\udcff.png", "x" * 100]
    names = Names.of(strings)
    assert len(names) == 4 and list(names) == strings and names[2] == strings[2]
    assert names.bytes() == sum(len(os.fsencode(string)) for string in strings) + 4 * 8
    assert list(Names.of([])) == []


def test_eight_thousand_files_cost_less_than_their_names_and_sixty_bytes_each(
    tmp_path: Path,
) -> None:
    for label in range(20):
        (tmp_path / f"class-{label}").mkdir()
        for i in range(400):
            (tmp_path / f"class-{label}/{i:08}.jpg").touch()
    encoded, layout, _ = class_folders(tmp_path)
    parts = [layout.train, layout.test]
    arrays = sum(part.positions.nbytes + part.labels.nbytes for part in parts)
    assert sum(len(part.labels) for part in parts) == 8_000
    assert encoded.names.bytes() + arrays < 8_000 * (len("class-10/00000000.jpg") + 60)


def test_names_are_those_of_a_sorted_list(folders: Path) -> None:
    (folders / "train/a-b").mkdir()  # "-" comes before "/"
    (folders / "train/a-b/0.png").write_bytes((folders / "train/a/0.png").read_bytes())
    files = (str(path.relative_to(folders)) for path in folders.rglob("*.png"))
    assert [name for name in names_below(folders) if not name.endswith("/")] == sorted(files)


def test_the_list_of_names_is_read_again_when_a_folder_has_changed(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago = time.time_ns() - 10**12
    monkeypatch.setattr(time, "time_ns", lambda: long_ago + 2 * 10**12)  # nothing is recent
    before = list(names_below(folders))
    scanned = list[str]()
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (scanned.append(path), scandir(path))[1])
    assert list(names_below(folders)) == before and not scanned
    (folders / "train/a/new.png").touch()
    assert list(names_below(folders)) == sorted([*before, "train/a/new.png"])
    (folders / "train/a/new.png").unlink()
    assert list(names_below(folders)) == before


def test_a_folder_that_has_just_changed_is_not_cached(folders: Path) -> None:
    names_below(folders)
    (folders / "train/a/new.png").touch()
    assert "train/a/new.png" in list(names_below(folders))


def test_folders_beside_the_one_with_all_images_do_not_shift_names(tmp_path: Path) -> None:
    (tmp_path / "about").mkdir()  # comes before set/, and has no image
    for label, value in (("a", 10), ("b", 200)):
        (tmp_path / "set/train" / label).mkdir(parents=True)
        (tmp_path / "set/test" / label).mkdir(parents=True)
        for split in ("train", "test"):
            Image.new("L", (8, 8), value).save(tmp_path / "set" / split / label / "0.png")
    data = imagefolder(
        path=str(tmp_path),
        **{**STREAM, "workers": 0, "val_fraction": 0.0, "resize": 8, "channels": 3},
    )
    images, labels = next(data.eval_batches("test"))
    assert labels.tolist() == [0, 1] and images[0].mean() < images[1].mean()


# -- tar shards --------------------
Examples = dict[str, bytes]


def example(key: str, value: int, label: int) -> Examples:
    image = encoded(Image.new("RGB", (16, 16), (value, value, value)), "PNG")
    return {f"{key}.png": image, f"{key}.cls": str(label).encode()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Train shards of 5 and 7 images, a test shard of 4; the label is the value modulo 3."""
    (tmp_path / "shards").mkdir()
    values = iter(range(16))
    for name, count in (("train-0", 5), ("train-1", 7), ("test-0", 4)):
        members: Examples = {}
        for _ in range(count):
            value = next(values)
            members |= example(f"{value:04}", 10 * value, value % 3)
        (tmp_path / f"shards/{name}.tar").write_bytes(tar_of(members, "w"))
    return tmp_path / "shards"


def test_shards_have_the_images_and_labels_of_their_members(folder: Path) -> None:
    data = webdataset(path=str(folder), **SHARDS)
    assert data.sizes == {"train": 12, "val": 0, "test": 4} and data.classes == 3
    images, labels = next(data.eval_batches("train"))
    assert labels.tolist() == [value % 3 for value in range(12)]
    pixels = (images * 0.25 + 0.5) * 255  # `SHARDS` normalises by 0.5 and 0.25
    assert pixels[:, 0, 3, 3].round().tolist() == [10 * value for value in range(12)]
    assert next(data.eval_batches("test"))[1].tolist() == [0, 1, 2, 0]


@forking
def test_shards_are_the_same_in_memory_and_in_any_number_of_workers(folder: Path) -> None:
    alone, helped = (webdataset(path=str(folder), **{**SHARDS, "workers": n}) for n in (0, 2))
    assert same(alone.train_batches(5, 0, 1), helped.train_batches(5, 0, 1))
    loaded = webdataset(path=str(folder), **{**SHARDS, "in_memory": "auto"})
    assert type(loaded).__name__ == "Decoded" and loaded.sizes == alone.sizes
    assert same(everything(loaded), everything(alone))  # of one colour: parts are like the whole


def test_the_size_decides_whether_images_are_loaded_and_the_log_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("dimred.data.sources.LARGE", 16 * 16 * 16 * 3)
    assert (
        type(webdataset(path=str(folder), **{**SHARDS, "in_memory": "auto"})).__name__ == "Stream"
    )
    assert (
        "16 images, 0.0117 MiB when decoded, are streamed (dataset.in_memory=auto)" in caplog.text
    )
    with pytest.raises(UserError, match="needs a size in pixels"):
        webdataset(path=str(folder), **{**SHARDS, "in_memory": "auto", "resize": None})


def test_json_has_labels_too_and_other_members_are_ignored(tmp_path: Path) -> None:
    image = encoded(Image.new("RGB", (8, 8)), "PNG")
    members = {"a.png": image, "a.json": b'{"label": 1}', "a.txt": b"words"}
    members |= {"b.png": image, "b.json": b'{"cls": 0, "x": [1]}'}
    members |= {"c.png": image, "c.json": b'{"x": 1}', "c.cls": b"1\n", "../d.png": image}
    members |= {"._c.png": b"of a Mac"}
    (tmp_path / "some.tar").write_bytes(tar_of(members, "w"))
    collection = shards(tmp_path / "some.tar")
    assert len(collection.encoded) == 3
    labels = [*collection.layout.train.labels, *collection.layout.test.labels]
    assert sorted(labels) == [0, 1, 1]


def broken(change: Callable[[Examples], object]) -> bytes:
    members = example("0", 1, 0) | example("1", 1, 1)
    change(members)
    return tar_of(members, "w")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (broken(lambda members: members.pop("1.cls")), "has no class of 1; expected"),
        (broken(lambda members: members.update({"1.cls": b"dog"})), "1.cls has no class number"),
        (broken(lambda members: members.update({"1.cls": b"-1"})), "1.cls has no class number"),
        (broken(lambda members: members.update({"1.json": b"{"})), "1.json has no class number"),
        (broken(lambda members: members.update({"1.jpg": b""})), "several images of 1;"),
        (broken(lambda members: None)[:-10240], "is damaged"),
        (b"no tar", "is damaged"),
    ],
)
def test_unsuitable_shards_are_user_errors(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "train.tar").write_bytes(content)
    with pytest.raises(UserError, match=problem):
        shards(tmp_path / "train.tar")


def test_names_of_shards_say_their_splits(folder: Path, tmp_path: Path) -> None:
    (folder / "train-1.tar").rename(folder / "train-to-test.tar")
    with pytest.raises(UserError, match="names the splits train and test"):
        shards(folder)
    (folder / "train-to-test.tar").rename(folder / "other.tar")
    layout = shards(folder).layout
    assert layout.notes == ["other.tar is neither train, val nor test and is ignored"]
    assert layout.train.positions.tolist() == [11, 12, 13, 14, 15]  # after other.tar and test-0.tar
    (folder / "train-0.tar").unlink()
    with pytest.raises(UserError, match="no train examples"):
        shards(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="no uncompressed tar"):
        shards(empty)
    with pytest.raises(UserError, match="does not exist"):
        shards(tmp_path / "nothing")


def test_the_index_of_a_shard_is_made_again_when_the_file_changes(folder: Path) -> None:
    before = shards(folder).encoded
    (folder / "train-0.tar").write_bytes(tar_of(example("new", 1, 1), "w"))
    after = shards(folder).encoded
    assert len(before) == 16 and len(after) == 12
    assert after.name(4).endswith("train-0.tar: new.png")


def test_a_link_in_a_shard_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of(example("0", 1, 0) | example("1", 1, 1), "w"))
    with tarfile.open(tmp_path / "x.tar", "a") as tar:
        link = tarfile.TarInfo("2.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    assert len(shards(tmp_path / "x.tar").encoded) == 2


# -- corrupted images --------------------
@pytest.fixture
def damaged(folder: Path) -> Path:
    """Images 3 and 4 of the first train shard are cut; 5 is the first of the second."""
    members: Examples = {}
    for value in range(5):
        members |= example(f"{value:04}", 10 * value, value % 3)
    for key in ("0003", "0004"):
        members[f"{key}.png"] = members[f"{key}.png"][:40]
    (folder / "train-0.tar").write_bytes(tar_of(members, "w"))
    return folder


@forking
@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupted_member_is_named(damaged: Path, workers: int) -> None:
    data = webdataset(path=str(damaged), **{**SHARDS, "workers": workers})
    with pytest.raises(UserError, match=r"^[^\n]*train-0.tar: 0003.png is damaged[^\n]*$"):
        list(data.eval_batches("train"))


@forking
@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_readable_image_stands_in_for_a_corrupted_one(
    damaged: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    options = {**SHARDS, "workers": workers, "skip_corrupted": True}
    data = webdataset(path=str(damaged), **options)
    batches = list(data.eval_batches("train", 4))
    images = torch.cat([images for images, _ in batches])
    values = ((images[:, 0, 3, 3] * 0.25 + 0.5) * 255).round() / 10
    assert values.tolist() == [0, 1, 2, 5, 5, 5, 6, 7, 8, 9, 10, 11]
    labels = torch.cat([labels for _, labels in batches])
    assert labels.tolist() == [value % 3 for value in values.int().tolist()]
    list(data.eval_batches("train", 4))  # nothing is reported twice
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2 and warnings[1].endswith(
        "0004.png is corrupted, and the next image takes its place (2 so far)"
    )


def test_corrupted_images_are_left_out_in_memory(
    damaged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {**SHARDS, "in_memory": True}
    with pytest.raises(UserError, match=r"0003.png is damaged"):
        webdataset(path=str(damaged), **options)
    data = webdataset(path=str(damaged), **{**options, "skip_corrupted": True})
    assert data.sizes == {"train": 10, "val": 0, "test": 4}
    assert "2 corrupted images left out" in caplog.text


def test_a_split_without_a_readable_image_is_an_error(damaged: Path) -> None:
    members = example("0", 1, 0) | example("1", 1, 1)
    members |= {"0.png": b"no", "1.png": b"no"}
    (damaged / "test-0.tar").write_bytes(tar_of(members, "w"))
    data = webdataset(path=str(damaged), **{**SHARDS, "skip_corrupted": True})
    with pytest.raises(UserError, match=r"Every image of a split \(2\) is corrupted"):
        list(data.eval_batches("test"))
