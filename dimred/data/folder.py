"""Data sets of image files: decoded into memory, or (`imagefolder`) streamed from disk."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import PIL
import torch

from dimred.data.arrays import Examples
from dimred.data.base import Data, log_notes, require_range
from dimred.data.encoded import Collection, class_folders, of_members
from dimred.data.files import checked, fetch, files_below, reading, remembered
from dimred.data.images import Member, members, suitable, tar_members
from dimred.data.layout import LAYOUT
from dimred.data.memory import Memory
from dimred.data.pixels import decode_all
from dimred.data.stream import Stream
from dimred.errors import UserError


@dataclass(kw_only=True)
class ImageFiles(Memory):
    """Image files, decoded into memory by `workers` threads (0 counts as 1) and cached for the next
    run.

    `resize` scales all images to squares of this size, without keeping their proportions. It is
    needed if their sizes differ."""

    workers: int

    @abstractmethod
    def source(self) -> Path:
        """The directory or archive, downloaded if necessary."""

    def members(self, path: Path) -> Iterator[Member]:
        """Name and content of the images to use, with names that `arrange` understands."""
        return members(path)

    def collection(self, path: Path) -> Collection:
        """The images to use, with their splits and classes."""
        return of_members(path, self.members(path))

    def files(self, path: Path) -> tuple[Path, ...]:
        """The files and folders that are read."""
        return (path,)

    def wanted_channels(self) -> int | None:
        """1, 3, or None to take it from the images."""
        return 3

    def skips(self) -> bool:
        """Whether to leave out corrupted images."""
        return False

    def read(self) -> tuple[Examples, ...]:
        require_range(workers=(self.workers, 0, 1024))
        path, channels = self.source(), self.wanted_channels()
        self.read_from = self.files(path)
        version = [fingerprint(each) for each in self.read_from]
        options = self.resize, channels, self.skips()
        key = "images 3", type(self).__name__, PIL.__version__, version, *options
        tensors = remembered(key, lambda: self.decode(path, channels))
        log_notes(self.name, bytes(tensors["notes"].tolist()).decode().splitlines())
        splits = [split for split in ("train", "val", "test") if f"{split}_labels" in tensors]
        return tuple(
            Examples(tensors[f"{split}_images"], tensors[f"{split}_labels"]) for split in splits
        )

    def decode(self, path: Path, channels: int | None) -> dict[str, torch.Tensor]:
        encoded, layout, _ = self.collection(path)
        images, readable, notes = decode_all(
            encoded, path, self.resize, channels, self.workers, self.skips()
        )
        tensors = {
            "notes": torch.tensor(list("\n".join(notes + layout.notes).encode()), dtype=torch.uint8)
        }
        for split, whole in layout.parts().items():
            part = whole.at(readable[whole.positions])
            tensors[f"{split}_images"] = torch.from_numpy(images[part.positions])
            tensors[f"{split}_labels"] = torch.from_numpy(part.labels)
        return tensors


def fingerprint(path: Path) -> tuple[Any, ...]:
    """Values that change with the files at `path`: names, sizes, times."""
    inside = [""]
    if path.is_dir():
        inside = [name for name in files_below(path) if not name.endswith("/")]
    with reading(path):
        found = [(name, os.stat(path / name)) for name in inside]
    # ctime as well: copying a file can restore its modification time, but not its ctime
    stats = [(name, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for name, each in found]
    return str(path.resolve()), stats


@dataclass(kw_only=True)
class ImageFolder(ImageFiles):
    """A directory or archive of class folders; see `imagefolder`."""

    name: str
    path: str
    channels: Literal[1, 3] | None
    skip_corrupted: bool

    def wanted_channels(self) -> int | None:
        return self.channels

    def skips(self) -> bool:
        return self.skip_corrupted

    def source(self) -> Path:
        return suitable(Path(self.path).expanduser())


def imagefolder(
    name: str,
    path: str,
    val_fraction: float,
    resize: int | None,
    channels: Literal[1, 3] | None,
    in_memory: bool,
    workers: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    crop_padding: int,
    flip: bool,
    skip_corrupted: bool,
) -> Data:
    """Images in class folders: train/<class>/* with test/ or val/ likewise, or only <class>/* (see
    `layout.arrange`).

    channels: 1 (grey), 3 (colour), or null: 1 if all images are grey, else 3.
    in_memory: true decodes a directory or an archive into memory once; see `Memory` and
    `ImageFiles`. false streams a directory by `workers` processes (0: this one); see `Stream`.
    skip_corrupted: false ends the run at an image that cannot be decoded, and names it. true leaves
    it out; in a stream, the next image of the split takes its place.
    """
    if in_memory:
        return ImageFolder(
            name=name, path=path, val_fraction=val_fraction, resize=resize, channels=channels,
            workers=workers, mean=mean, std=std, crop_padding=crop_padding, flip=flip,
            skip_corrupted=skip_corrupted,
        )  # fmt: skip
    if resize is None or crop_padding or not suitable(Path(path).expanduser()).is_dir():
        raise UserError(
            f"Got dataset.in_memory=false with resize={resize}, crop_padding={crop_padding} and "
            f"path={path}; streaming needs a size in pixels (resize=224), crop_padding=0 (it crops "
            f"at random anyway) and a directory of images in {LAYOUT}. Set these, unpack the "
            "archive, or use in_memory=true."
        )
    return Stream(
        name=name, collection=class_folders(Path(path).expanduser()), val_fraction=val_fraction,
        resize=resize, channels=channels, workers=workers, mean=mean, std=std, flip=flip,
        skip_corrupted=skip_corrupted,
    )  # fmt: skip


@dataclass(kw_only=True)
class TinyImageNet(ImageFiles):
    """200 classes of 3x64x64, from data_dir/tiny-imagenet-200.zip or the folder of that name. The
    labelled val/ is the test set."""

    data_dir: str

    name = "Tiny-ImageNet"
    folder = "tiny-imagenet-200"
    md5 = "90528d7ca1a48142e341f4ef8d21d0de"

    def source(self) -> Path:
        home = Path(self.data_dir).expanduser()
        expected = (
            f"{self.name} is read from {self.folder}.zip or the folder {self.folder} in {home}, "
            "or set data_dir."
        )
        url = f"http://cs231n.stanford.edu/{self.folder}.zip"
        unpacked = home / self.folder
        return (
            unpacked
            if unpacked.is_dir()
            else fetch(home / f"{self.folder}.zip", [url], self.md5, expected)
        )

    def members(self, path: Path) -> Iterator[Member]:
        classes = dict(line.split("\t")[:2] for line in self.annotations(path).splitlines())
        for name, content in members(path):
            top, *_, file = name.removeprefix(f"{self.folder}/").split("/")
            if top == "train":
                yield name.removeprefix(f"{self.folder}/"), content
            elif file in classes:
                yield f"test/{classes[file]}/{file}", content

    def annotations(self, path: Path) -> str:
        """Tab-separated lines for the images in val/: file name, class and more."""
        with reading(path, zipfile.BadZipFile, zlib.error, KeyError):
            if path.is_dir():
                return (path / "val/val_annotations.txt").read_text()
            with zipfile.ZipFile(io.BytesIO(checked(path, self.md5))) as archive:
                return archive.read(f"{self.folder}/val/val_annotations.txt").decode()


@dataclass(kw_only=True)
class Caltech101(ImageFiles):
    """101 classes of 31 to 800 images, without BACKGROUND_Google; a fixed fifth of every class is
    the test set.

    From the folder data_dir/caltech101/101_ObjectCategories (as torchvision unpacks it) or
    caltech101/caltech-101.zip."""

    data_dir: str

    name = "Caltech-101"
    md5 = "3138e1922a9193bfa496528edbbc45d0"

    def source(self) -> Path:
        home = Path(self.data_dir).expanduser() / "caltech101"
        expected = (
            f"{self.name} is read from caltech-101.zip or 101_ObjectCategories in {home}, or set "
            "data_dir."
        )
        url = "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip"
        unpacked = home / "101_ObjectCategories"
        return (
            unpacked
            if unpacked.is_dir()
            else fetch(home / "caltech-101.zip", [url], self.md5, expected)
        )

    def members(self, path: Path) -> Iterator[Member]:
        everything = members(path) if path.is_dir() else self.zipped(path)
        return (
            (name, content)
            for name, content in everything
            if "BACKGROUND_Google" not in name.split("/")
        )

    def zipped(self, path: Path) -> Iterator[Member]:
        """The images of the zip file, which contains them as a tar.gz."""
        inner = "caltech-101/101_ObjectCategories.tar.gz"
        content = io.BytesIO(checked(path, self.md5))
        with (
            reading(path, zipfile.BadZipFile, KeyError),
            zipfile.ZipFile(content) as outer,
            outer.open(inner) as tar,
        ):
            yield from tar_members(path / inner, tar)
