"""Writes the images of a data set, reduced to one size, to tar shards that are streamed faster."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from dimred.data import manifest
from dimred.data.encoded import Collection, Encoded
from dimred.data.files import DamagedData, reading
from dimred.data.pixels import UNREADABLE, mode_of
from dimred.data.stream import unchanged
from dimred.errors import UserError
from dimred.files import Json, digest_of, write

IN_A_SHARD = 1000  # images; a killed process loses the shards that it is writing
KEPT = {"JPEG": "jpg", "PNG": "png"}  # formats whose small images are copied as they are
TEMPORARY = r"\.((train|val|test)-\d{5}\.tar|shards\.json)\.\d+"


class Shard(NamedTuple):
    """A shard to be written."""

    name: str
    first: int  # number of its first image in the split
    positions: np.ndarray  # in the collection
    labels: np.ndarray


class Written(NamedTuple):
    """A shard that was written."""

    name: str
    entry: Json
    skipped: list[str]  # names of corrupted images


@dataclass
class Writer(Dataset):
    """Writes shard i, in any process."""

    target: Path
    encoded: Encoded
    shards: Sequence[Shard]
    size: int
    quality: int
    skip_corrupted: bool

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, i: int) -> Written | UserError:
        """A UserError is returned, as in stream.py."""
        try:
            return self.write(self.shards[i])
        except UserError as error:
            return error

    def write(self, shard: Shard) -> Written:
        buffer, skipped = io.BytesIO(), list[str]()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for i, position in enumerate(shard.positions.tolist()):
                name = self.encoded.name(position)
                try:
                    content, suffix = self.reduced(self.encoded.content(position), name)
                except DamagedData:
                    if not self.skip_corrupted:
                        raise
                    skipped.append(name)
                    continue
                key = f"{shard.first + i:08}"
                add(tar, f"{key}.{suffix}", content)
                add(tar, f"{key}.cls", str(shard.labels[i]).encode())
        content = buffer.getvalue()
        write(self.target / shard.name, content)
        entry = {
            "images": len(shard.labels) - len(skipped),
            "skipped": len(skipped),
            "bytes": len(content),
            "blake2b": digest_of(content).hexdigest(),
        }
        return Written(shard.name, entry, skipped)

    def reduced(self, content: bytes, name: str) -> tuple[bytes, str]:
        """The file of an image whose shorter side is at most `size`, and its suffix."""
        with reading(name, *UNREADABLE), Image.open(io.BytesIO(content)) as file:
            mode = mode_of(file, None)
            if mode == "F":
                raise UserError(
                    f"{name} is deeper than 8 bits. Convert such images to 8 bits first."
                )
            scale = self.size / min(file.size)
            if scale >= 1 and file.format in KEPT:
                file.load()  # whether it can be decoded
                return content, KEPT[file.format]
            width, height = (max(1, round(side * min(scale, 1))) for side in file.size)
            file.draft(mode, (width, height))  # libjpeg halves sides as it decodes
            image = file.convert(mode).resize((width, height), Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=self.quality)
        return buffer.getvalue(), "jpg"


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # without times and owners: the same bytes each time
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def planned(collection: Collection) -> list[Shard]:
    """The shards of all splits, in order."""
    shards = []
    for split, part in collection.layout.parts().items():
        for number, first in enumerate(range(0, len(part.labels), IN_A_SHARD)):
            at = slice(first, first + IN_A_SHARD)
            name = f"{split}-{number:05}.tar"
            shards.append(Shard(name, first, part.positions[at], part.labels[at]))
    return shards


@dataclass
class Preparation:
    """What is to be written to a folder, and what is there already."""

    collection: Collection
    target: Path
    size: int
    quality: int
    skip_corrupted: bool

    def __post_init__(self) -> None:
        self.shards = planned(self.collection)
        settings = {
            "size": self.size,
            "quality": self.quality,
            "skip_corrupted": self.skip_corrupted,
            "examples": {
                split: len(part.labels) for split, part in self.collection.layout.parts().items()
            },
            "source": [str(path.resolve()) for path in self.collection.files],
        }
        names = [shard.name for shard in self.shards]
        self.manifest: Json = {"settings": settings, "planned": names, "shards": {}}
        found = manifest.read_manifest(self.target)
        if found is not None:
            self.require_same(found)
            self.manifest = found

    def require_same(self, found: Json) -> None:
        for key, wanted in self.manifest["settings"].items():
            if (there := found.get("settings", {}).get(key)) != wanted:
                raise UserError(
                    f"{self.target} holds shards with {key}={there}; asked for is {key}={wanted}. "
                    "Choose another folder, or remove this one."
                )

    def left(self) -> list[Shard]:
        """The shards that are not written yet."""
        return [
            shard
            for shard in self.shards
            if not manifest.is_written(self.target, shard.name, self.manifest)
        ]

    def write(self, jobs: int) -> Iterator[Written]:
        """Write what is left by `jobs` processes (0: this one)."""
        self.target.mkdir(parents=True, exist_ok=True)
        for path in self.target.iterdir():
            if re.fullmatch(TEMPORARY, path.name):  # of a process that was killed
                path.unlink()
        manifest.write_manifest(self.target, self.manifest)
        left = self.left()
        writer = Writer(
            self.target, self.collection.encoded, left, self.size, self.quality, self.skip_corrupted
        )
        # the workers of a DataLoader end with their parent, even if that is killed
        loader: DataLoader[Any] = DataLoader(
            writer, batch_size=None, num_workers=min(jobs, len(left)), collate_fn=unchanged
        )
        for written in loader:
            if isinstance(written, UserError):
                raise written
            self.manifest["shards"][written.name] = written.entry
            manifest.write_manifest(self.target, self.manifest)
            yield written
