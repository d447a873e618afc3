"""Collections of encoded images (JPEG, PNG, ...), one image of which can be read at a time, in any
order and by any process."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dimred.data.files import files_below, reading, remembered
from dimred.data.images import Member, usable
from dimred.data.layout import Layout, arrange
from dimred.data.names import Names

RECENT = 2 * 10**9  # nanoseconds; file systems round times, to up to two seconds


class Encoded(ABC):
    """Encoded images, each with a number. Its attributes are few and large, so that the processes
    that decode share them; files are opened where they are read."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def content(self, i: int) -> bytes:
        """The file of image i. UserError if it cannot be read."""

    @abstractmethod
    def name(self, i: int) -> str:
        """What errors call image i: its file, or its shard and its name there."""


class Chained(Encoded):
    """Images in several files, numbered through from the first file to the last."""

    def __init__(self, counts: Iterable[int]) -> None:
        """counts: how many images each file has."""
        self.first = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self.first[-1])

    def place(self, i: int) -> tuple[int, int]:
        """The file of image i, and its number there."""
        file = int(np.searchsorted(self.first, i, side="right")) - 1
        return file, i - int(self.first[file])


class Collection(NamedTuple):
    """Images, and which of them belong to which split and class."""

    encoded: Encoded
    layout: Layout
    files: tuple[Path, ...]  # or folders, that it was read from


@dataclass
class Files(Encoded):
    """The image files of a folder."""

    root: Path
    names: Names

    def __len__(self) -> int:
        return len(self.names)

    def content(self, i: int) -> bytes:
        path = self.root / self.names[i]
        with reading(path):
            return path.read_bytes()

    def name(self, i: int) -> str:
        return str(self.root / self.names[i])


@dataclass
class InMemory(Encoded):
    """Images whose files are in memory, such as those of an archive."""

    path: Path
    members: Sequence[Member]

    def __len__(self) -> int:
        return len(self.members)

    def content(self, i: int) -> bytes:
        return self.members[i][1]

    def name(self, i: int) -> str:
        return f"{self.path}: {self.members[i][0]}"


def of_members(path: Path, members: Iterable[Member]) -> Collection:
    """The images among the members of an archive or a directory, in memory; see `arrange`."""
    found = sorted(members, key=lambda member: (member[0].endswith("/"), member[0]))
    images = [member for member in found if not member[0].endswith("/")]
    layout = arrange((name for name, _ in found), path)
    return Collection(InMemory(path, images), layout, (path,))


def class_folders(root: Path) -> Collection:
    """The images in a directory of class folders; see `arrange`."""
    names = names_below(root)
    return Collection(Files(root, names), arrange(names, root), (root,))


def names_below(root: Path) -> Names:
    """The images below a directory, and its folders (with a "/" at the end), sorted.

    The list is cached, and made again if a folder below `root` has changed: files that were added,
    removed or renamed change the time of modification of their folder."""
    key = "names of images 1", str(root.resolve())
    found = remembered(key, lambda: listed(root), lambda found: is_current(root, found))
    return Names(found["text"], found["ends"])


def listed(root: Path) -> dict[str, Tensor]:
    """The names, the folders and their times, as `remembered` stores them."""
    now = time.time_ns()
    folders = [""]
    names = Names.of(images_in(root, folders))
    with reading(root):
        times = times_of(root, folders)
    # A folder that has just changed can change once more without another time.
    if int(times.max()) > now - RECENT:
        times.zero_()
    below = Names.of(folders)
    return {
        "text": names.text,
        "ends": names.ends,
        "folders": below.text,
        "folder_ends": below.ends,
        "times": times,
    }


def images_in(root: Path, folders: list[str]) -> Iterator[str]:
    """The images and the folders below a directory. Appends all folders, hidden ones included, to
    `folders`."""
    for name in files_below(root):
        if name.endswith("/"):
            folders.append(name)
        if usable(name) == name:
            yield name


def times_of(root: Path, folders: Iterable[str]) -> Tensor:
    """When the folders were changed, and when their entries were, int64 (n, 2)."""
    found = [os.stat(root / folder) for folder in folders]
    return torch.tensor([(each.st_mtime_ns, each.st_ctime_ns) for each in found])


def is_current(root: Path, found: dict[str, Tensor]) -> bool:
    folders = Names(found["folders"], found["folder_ends"])
    try:
        return torch.equal(times_of(root, folders), found["times"])
    except OSError:
        return False
