"""Folders and archives of images, in memory and streamed."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from small_data import (
    FOLDER,
    ROOT,
    STREAM,
    config_of,
    everything,
    forking,
    real,
    same,
    tar_of,
)

from dimred.data import (
    imagefolder,
)
from dimred.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")


# Image folders
def archived(folder: Path, target: Path) -> Path:
    """The files of a folder, in one more folder, in an archive that also has what nobody should
    trust."""
    content = {
        f"set/{file.relative_to(folder)}": file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }
    content["set/train/a/../../escape.png"] = content["set/__MACOSX/train/a/._0.png"] = (
        b"never looked at"
    )
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    else:
        target.write_bytes(
            tar_of(content, "w:" + target.suffix[1:] if target.suffix != ".tar" else "w")
        )
    return target


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.xz", "x.tar.bz2", "x.zip"])
def test_a_folder_and_its_archive_are_the_same_data(
    pictures: Path, tmp_path: Path, name: str
) -> None:
    plain = imagefolder(path=str(pictures), **FOLDER)
    packed = imagefolder(path=str(archived(pictures, tmp_path / name)), **FOLDER)
    assert (plain.classes, plain.shape, plain.sizes) == (
        3,
        (3, 20, 20),
        {"train": 18, "val": 0, "test": 6},
    )
    assert same(everything(plain), everything(packed))


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.xz", "x.zip"])
def test_cut_archives_are_named(pictures: Path, tmp_path: Path, name: str) -> None:
    whole = archived(pictures, tmp_path / name).read_bytes()
    needed = len(whole.rstrip(b"\0"))  # behind that a tar is padded
    for size in (0, 100, 512, needed // 1024 * 512, needed // 2, needed - 20):
        (tmp_path / name).write_bytes(whole[:size])
        with pytest.raises(UserError, match=f"{name} is damaged"):
            imagefolder(path=str(tmp_path / name), **FOLDER)


def test_links_in_archives_are_skipped(pictures: Path, tmp_path: Path) -> None:
    with tarfile.open(archived(pictures, tmp_path / "x.tar"), "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo("set/train/a/link.png")
            link.type, link.linkname = kind, "/etc/hostname"
            tar.addfile(link)
    assert imagefolder(path=str(tmp_path / "x.tar"), **FOLDER).sizes["train"] == 18


def test_without_a_test_folder_a_fixed_fifth_of_every_class_is_held_out(pictures: Path) -> None:
    data = imagefolder(path=str(pictures / "train"), **FOLDER)
    assert (data.classes, data.sizes) == (3, {"train": 14, "val": 0, "test": 4})


def test_unequal_sizes_ask_for_resize(pictures: Path, tmp_path: Path) -> None:
    for name, side in (("a/0.png", 20), ("b/0.png", 30), ("b/1.png", 20)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (side, side)).save(tmp_path / name)
    with pytest.raises(UserError, match=r"unequal sizes .*dataset.resize=64"):
        imagefolder(path=str(tmp_path), **FOLDER)
    assert imagefolder(path=str(tmp_path), **{**FOLDER, "channels": 3, "resize": 8}).shape == (
        3,
        8,
        8,
    )


def test_unsuitable_folders_are_user_errors(pictures: Path, tmp_path: Path) -> None:
    problems = {
        tmp_path / "none": "does not exist",
        tmp_path: "0 class folders",
        Path(__file__): "has another type",
    }
    for path, problem in problems.items():
        for kind in (FOLDER, STREAM):
            with pytest.raises(UserError, match=problem):
                imagefolder(path=str(path), **kind)
    archive = archived(pictures, tmp_path / "x.tar")
    for option, value in {"resize": None, "crop_padding": 4, "path": str(archive)}.items():
        with pytest.raises(UserError, match="in_memory=false"):
            imagefolder(**{**STREAM, "path": str(pictures), option: value})


def test_decoded_images_are_remembered_until_the_files_change(
    pictures: Path, tmp_path: Path
) -> None:
    archive = archived(pictures, tmp_path / "x.zip")
    first = imagefolder(path=str(archive), **FOLDER)
    (cached,) = (tmp_path / "cache").iterdir()
    before = cached.stat().st_mtime_ns
    assert same(everything(first), everything(imagefolder(path=str(archive), **FOLDER)))
    assert cached.stat().st_mtime_ns == before
    cached.write_bytes(b"spoilt")  # is made again
    assert same(everything(first), everything(imagefolder(path=str(archive), **FOLDER)))
    os.utime(archive, (0, 0))
    imagefolder(path=str(archive), **FOLDER)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_cache(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DIMRED_CACHE", str(tmp_path / "file/cache"))
    assert imagefolder(path=str(pictures), **FOLDER).sizes["train"] == 18


def test_cifar10_jpeg_reads_its_archive() -> None:
    config = config_of(ROOT / "conf/dataset/cifar10_jpeg.yaml")
    data = instantiate(config, path=str(real("cifar10-jpeg.tar.xz") / "cifar10-jpeg.tar.xz"))
    assert (data.name, data.classes, data.shape) == ("CIFAR-10-JPEG", 10, (3, 32, 32))
    assert data.sizes == {"train": 45_000, "val": 5_000, "test": 10_000}
    assert torch.bincount(data.splits["val"].labels).tolist() == [500] * 10


# Streaming
@forking
def test_streams_do_not_depend_on_the_number_of_workers(pictures: Path) -> None:
    alone, helped = (imagefolder(path=str(pictures), **{**STREAM, "workers": n}) for n in (0, 2))
    assert alone.sizes == {"train": 14, "val": 4, "test": 6} and alone.shape == (3, 16, 16)
    assert same(alone.train_batches(4, seed=0, epoch=1), helped.train_batches(4, seed=0, epoch=1))
    assert same(alone.eval_batches("test", 4), helped.eval_batches("test", 4))


@forking
@pytest.mark.parametrize("workers", [0, 2])
def test_a_cut_image_is_named_in_memory_and_in_streams(
    pictures: Path, tmp_path: Path, workers: int
) -> None:
    for name in ("a/0.png", "b/0.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((pictures / "train" / name).read_bytes())
    (tmp_path / "b/1.png").write_bytes((pictures / "train/b/1.png").read_bytes()[:600])
    with pytest.raises(UserError, match=r"b/1.png is damaged"):
        imagefolder(path=str(tmp_path), **FOLDER)
    data = imagefolder(path=str(tmp_path), **{**STREAM, "val_fraction": 0.0, "workers": workers})
    with pytest.raises(UserError, match=r"^[^\n]*b/1.png is damaged[^\n]*$"):
        list(everything(data))
