"""Collections of encoded images as data sets, in memory or streamed."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from dimred.data.arrow import SAVED, rows
from dimred.data.base import Data, require_range
from dimred.data.encoded import Collection, Encoded, class_folders, of_members
from dimred.data.files import reading
from dimred.data.folder import ImageFolder
from dimred.data.images import members, suitable
from dimred.data.pixels import UNREADABLE
from dimred.data.shards import has_labels, shards
from dimred.data.stream import Stream
from dimred.errors import UserError, counted

log = logging.getLogger(__name__)

LARGE = 2**30  # bytes of decoded images, from which on in_memory=auto streams
InMemory = bool | Literal["auto"]
Channels = Literal[1, 3] | None


@dataclass(kw_only=True)
class Decoded(ImageFolder):
    """A collection, decoded into memory."""

    given: Collection

    def source(self) -> Path:
        return Path(self.path).expanduser()

    def collection(self, path: Path) -> Collection:
        return self.given

    def files(self, path: Path) -> tuple[Path, ...]:
        return self.given.files


def webdataset(
    name: str,
    path: str,
    in_memory: InMemory,
    workers: int,
    val_fraction: float,
    resize: int | None,
    channels: Channels,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    crop_padding: int,
    flip: bool,
    skip_corrupted: bool,
) -> Data:
    """Tar shards in webdataset's convention, see `shards`; the other fields as in `imagefolder`.

    in_memory: auto loads images of less than 1 GiB (decoded) into memory, and streams more."""
    return data_of(
        shards(Path(path).expanduser()), in_memory, crop_padding,
        name=name, path=path, workers=workers, val_fraction=val_fraction, resize=resize,
        channels=channels, mean=mean, std=std, flip=flip, skip_corrupted=skip_corrupted,
    )  # fmt: skip


def huggingface(
    name: str,
    path: str,
    image: str | None,
    label: str | None,
    in_memory: InMemory,
    workers: int,
    val_fraction: float,
    resize: int | None,
    channels: Channels,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    crop_padding: int,
    flip: bool,
    skip_corrupted: bool,
) -> Data:
    """Images in Hugging Face's datasets; the other fields as in `webdataset`.

    path: a parquet file or a folder of them, a folder of save_to_disk, or a name on the hub
    image, label: columns; null where only one can be"""
    return data_of(
        rows(path, image, label), in_memory, crop_padding,
        name=name, path=path, workers=workers, val_fraction=val_fraction, resize=resize,
        channels=channels, mean=mean, std=std, flip=flip, skip_corrupted=skip_corrupted,
    )  # fmt: skip


def collection_at(path: str) -> Collection:
    """The images of tar shards, of a Hugging Face data set, or of class folders in a directory or
    an archive, whichever is there."""
    place = Path(path).expanduser()
    if is_shards(place):
        return shards(place)
    if not place.exists() or is_arrow(place):
        return rows(path, None, None)
    if place.is_dir():
        return class_folders(place)
    return of_members(place, members(suitable(place)))


def is_shards(path: Path) -> bool:
    """Whether a folder has tar files, or a tar file has labels."""
    if path.is_dir():
        return has_files(path, "*.tar")
    return path.suffix == ".tar" and path.is_file() and has_labels(path)


def is_arrow(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in SAVED) or has_files(path, "*.parquet")
    return path.suffix == ".parquet"


def has_files(folder: Path, pattern: str) -> bool:
    """Whether such a file is in the folder or in one of its folders."""
    return any(any(folder.glob(where + pattern)) for where in ("", "*/"))


def data_of(collection: Collection, in_memory: InMemory, crop_padding: int, **options: Any) -> Data:
    """A collection as a data set. options: the fields that `Decoded` and `Stream` share."""
    require_range(resize=(options["resize"], 1, 4096))
    size = decoded_bytes(collection, options["resize"], options["channels"])
    chosen = size < LARGE if in_memory == "auto" else in_memory
    log.info(
        "%s: %s, %.3g MiB when decoded, %s (dataset.in_memory=%s)",
        *(options["name"], counted(len(collection.encoded), "image"), size / 2**20),
        *("are loaded into memory" if chosen else "are streamed", str(in_memory).lower()),
    )
    if chosen:
        return Decoded(given=collection, crop_padding=crop_padding, **options)
    if options["resize"] is None or crop_padding:
        raise UserError(
            f"{options['name']} is streamed, with resize={options['resize']} and "
            f"crop_padding={crop_padding}; streaming needs a size in pixels (resize=224) and "
            "crop_padding=0 (it crops at random anyway). Set these, or use "
            "dataset.in_memory=true."
        )
    del options["path"]
    streamed = Stream(collection=collection, **options)
    streamed.read_from = collection.files
    return streamed


def decoded_bytes(collection: Collection, size: int | None, channels: int | None) -> int:
    """The size of the decoded images, if all are as large as the first one."""
    encoded = collection.encoded
    width, height = (size, size) if size else size_of(encoded, 0)
    return len(encoded) * width * height * (channels or 3)


def size_of(encoded: Encoded, i: int) -> tuple[int, int]:
    with reading(encoded.name(i), *UNREADABLE), Image.open(io.BytesIO(encoded.content(i))) as file:
        return file.size
