"""Tar shards in the convention of webdataset: 000123.jpg with its class in 000123.cls or
000123.json. Members are read in place by their offsets, in any order; nothing is extracted."""

from __future__ import annotations

import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dimred.data.encoded import Chained, Collection
from dimred.data.files import damaged_data, files_below, reading, remembered
from dimred.data.images import SUFFIXES, usable
from dimred.data.layout import by_split
from dimred.data.manifest import require_written
from dimred.data.names import Names
from dimred.errors import UserError, listed

LABELS = ".cls", ".json"
KEYS = "cls", "label"  # of the class, in JSON
SHARDS = "train-*.tar with test-*.tar or val-*.tar, or folders of these names"
LARGEST_LABEL_FILE = 2**20


class Index(NamedTuple):
    """The images of one shard."""

    names: Names
    offsets: Tensor  # int64 (n,), of their first bytes
    sizes: Tensor  # int64 (n,), in bytes
    labels: Tensor  # int64 (n,)


@dataclass
class Shards(Chained):
    """The images in tar files."""

    paths: Sequence[Path]
    indices: Sequence[Index]

    def __post_init__(self) -> None:
        super().__init__(len(index.labels) for index in self.indices)

    def content(self, i: int) -> bytes:
        shard, at = self.place(i)
        index, path = self.indices[shard], self.paths[shard]
        size = int(index.sizes[at])
        with reading(path), open(path, "rb", buffering=0) as file:
            found = os.pread(file.fileno(), size, int(index.offsets[at]))
        if len(found) < size:
            raise damaged_data(path, f"it ends within {index.names[at]}")
        return found

    def name(self, i: int) -> str:
        shard, at = self.place(i)
        return f"{self.paths[shard]}: {self.indices[shard].names[at]}"


def shards(path: Path) -> Collection:
    """The images in a tar file, or in all those in a folder. The split of a shard is the first word
    of its name, or the name of its folder."""
    names = shards_in(path)
    require_written(path)
    root = path if path.is_dir() else path.parent
    paths = [root / name for name in names]
    indices = [index_of(each) for each in paths]
    encoded = Shards(paths, indices)
    labels = [index.labels.numpy() for index in indices]
    return Collection(encoded, by_split(names, labels, path), (path,))


def shards_in(path: Path) -> list[str]:
    names = [path.name]
    if path.is_dir():
        names = [name for name in files_below(path) if usable_shard(name)]
    if not names or not path.exists() or not names[0].endswith(".tar"):
        problem = "has no uncompressed tar file" if path.exists() else "does not exist"
        raise UserError(
            f"{path} {problem}; allowed is a .tar, or a folder of {SHARDS}. Unpack compressed "
            "ones (gunzip), because images are read from any place in them; other formats become "
            "shards by dimred data prepare."
        )
    return names


def usable_shard(name: str) -> bool:
    return name.endswith(".tar") and not any(part.startswith(".") for part in name.split("/"))


def index_of(path: Path) -> Index:
    """The index of a shard, cached until the file changes."""
    with reading(path):
        found = os.stat(path)
    version = found.st_size, found.st_mtime_ns, found.st_ctime_ns
    key = "index of shard 1", str(path.resolve()), *version
    made = remembered(key, lambda: make_index(path))
    return Index(Names(made["text"], made["ends"]), made["offsets"], made["sizes"], made["labels"])


def make_index(path: Path) -> dict[str, Tensor]:
    images, labels = [], dict[str, int]()
    with reading(path, tarfile.TarError), tarfile.open(path, "r:") as tar:
        for member in members_of(path, tar):
            stem, suffix = split_name(member.name)
            if suffix in LABELS and member.size <= LARGEST_LABEL_FILE:
                label = label_in(path, tar, member, suffix)
                if label is not None:
                    labels[stem] = label
            elif suffix in SUFFIXES:
                images.append((stem, member))
    require_one_label_each(path, [stem for stem, _ in images], labels)
    names = Names.of(member.name for _, member in images)
    columns = {
        "offsets": [member.offset_data for _, member in images],
        "sizes": [member.size for _, member in images],
        "labels": [labels[stem] for stem, _ in images],
    }
    numbers = {name: torch.tensor(column, dtype=torch.int64) for name, column in columns.items()}
    return {"text": names.text, "ends": names.ends, **numbers}


def has_labels(path: Path) -> bool:
    """Whether a tar has labels of examples, unlike an archive of class folders."""
    with reading(path, tarfile.TarError), tarfile.open(path, "r:") as tar:
        return any(split_name(member.name)[1] in LABELS for member in tar)


def members_of(path: Path, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The regular files of a tar. Skips links, devices and names that lead out of it."""
    for member in tar:
        if member.isreg() and not member.issparse() and usable(f"{member.name}/"):
            yield member
    # tarfile takes an archive that is cut between two members for a whole one
    if path.stat().st_size < tar.offset + tarfile.BLOCKSIZE:
        raise EOFError("the archive ends without an end mark")


def split_name(name: str) -> tuple[str, str]:
    """The key of an example and the suffix: a/01 and .jpg of a/01.jpg, as webdataset has it."""
    folder, slash, file = name.rpartition("/")
    key, dot, suffix = file.partition(".")
    return f"{folder}{slash}{key}", f"{dot}{suffix.lower()}"


def label_in(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> int | None:
    """The class in a member; None if JSON has none. UserError unless it is a whole number."""
    file = tar.extractfile(member)
    assert file, "a regular file"
    content = file.read()
    try:
        found: object = content.decode().strip()
        if suffix == ".json":
            found = json.loads(content)
            if not isinstance(found, dict):
                return None
            found = next((found[key] for key in KEYS if key in found), None)
            if found is None:
                return None
        label = int(str(found))
    except (ValueError, RecursionError):
        label = -1
    if not 0 <= label < 2**31:
        raise UserError(
            f"{path}: {member.name} has no class number; allowed is a whole number from 0 on, as "
            'text in .cls or as {"cls": 3} or {"label": 3} in .json. Number the classes from 0.'
        )
    return label


def require_one_label_each(path: Path, stems: Sequence[str], labels: Iterable[str]) -> None:
    without = sorted(set(stems) - set(labels))
    if without:
        raise UserError(
            f"{path} has no class of {listed(without)}; expected is a member of the same name with "
            "the suffix .cls (a number as text) or .json. Add it, or remove the images."
        )
    twice = sorted(stem for stem, count in Counter(stems).items() if count > 1)
    if twice:
        raise UserError(
            f"{path} has several images of {listed(twice)}; allowed is one for each name. Rename "
            "the others, or give them a suffix that is not of an image."
        )
