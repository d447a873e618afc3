"""Fingerprints of the files and folders that a run reads, taken before it starts and compared
whenever its result or its checkpoint is used again."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dimred.data.files import files_below, reading, require_regular
from dimred.errors import UserError, counted, see
from dimred.runs.config.leaves import leaves

Json = dict[str, Any]

# bytes and files; of larger folders names, sizes and times are compared
SMALL, FEW = 64 * 2**20, 2000
#: keys of dimred's own classes that name an input. (data_dir has those of other runs, too: see
#: Data.read_from. Of a mask the content is in the run's digest.)
OWN_INPUTS = {"path", "pretrained"}
#: keys of others' classes that name none
NOT_INPUTS = {"name", "_target_", "data_dir", "mask"}


def paths_in(groups: Mapping[str, Any]) -> dict[str, Path]:
    """The values of a configuration that name files or folders which exist, under their keys
    ("dataset.path"). Of dimred's own classes these are OWN_INPUTS: model.init=he is no file, though
    there may be one of that name."""
    found = {}
    for group, node in groups.items():
        own = str((node or {}).get("_target_", "")).startswith("dimred.")
        for keys, value in leaves({group: node}):
            last = keys[-1]
            names_input = last in OWN_INPUTS if own else last not in NOT_INPUTS
            # a path with a zero byte is an error of the operating system
            if names_input and isinstance(value, str) and value and "\0" not in value:
                found[".".join(keys)] = Path(value).expanduser()
    return {key: path for key, path in found.items() if os.path.exists(path)}


def fingerprint(path: Path) -> Json:
    """The fingerprint of a file, or of all files in a folder except hidden ones. The content is
    read if it is SMALL, in FEW files."""
    require_regular(path)
    names, times = Lines(), Lines()
    few: list[tuple[str, tuple[int, ...]]] = []  # files, and what changes whenever one does
    count = size = 0
    # one by one: a million files are no reason to hold a million objects
    with reading(path):
        for name in names_in(path):
            found = os.stat(path / name)
            count, size = count + 1, size + found.st_size
            names.add(f"{name}\0{found.st_size}")
            times.add(str(found.st_mtime_ns))
            if count <= FEW:
                few.append((name, (found.st_size, found.st_mtime_ns, found.st_ctime_ns)))
    out: Json = {
        "path": str(path.resolve()),
        "files": count,
        "bytes": size,
        "names": names.digest(),
        "times": times.digest(),
    }
    if size <= SMALL and count <= FEW:
        files = tuple(path / name for name, _ in few)
        out["content"] = content(files, tuple(version for _, version in few))
    return out


def names_in(path: Path) -> Iterable[str]:
    """The files below a folder, sorted, or "" for a file."""
    if not path.is_dir():
        return [""]
    return (name for name in files_below(path) if not name.endswith("/") and not hidden(name))


def hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


@functools.lru_cache(maxsize=256)  # the runs of a sweep read the same files
def content(files: tuple[Path, ...], versions: tuple[tuple[int, ...], ...]) -> str:
    """The checksum of the content of files; `versions` change whenever a file does."""
    hashes = []
    for file in files:
        with reading(file):
            hashes.append(hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest())
    return digest(hashes)


class Lines:
    """A checksum of lines, none of which is kept."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._between = b""

    def add(self, line: str) -> None:
        self._hash.update(self._between + line.encode("utf-8", "surrogateescape"))
        self._between = b"\n"

    def digest(self) -> str:
        return self._hash.hexdigest()


def digest(lines: Iterable[str]) -> str:
    found = Lines()
    for line in lines:
        found.add(line)
    return found.digest()


def difference(old: Json, new: Json) -> str | None:
    """How two fingerprints differ, in words. Times count only for the same path, and where the
    content was not read: a copy of the data on another disk is the same data."""
    if (old["files"], old["bytes"]) != (new["files"], new["bytes"]):
        then = f"{counted(old['files'], 'file')} of {counted(old['bytes'], 'byte')} then"
        return f"{then}, {new['files']} of {new['bytes']} now"
    if old["names"] != new["names"]:
        return "files have other names or sizes"
    if "content" in old and "content" in new:
        return "its content is another" if old["content"] != new["content"] else None
    if old["path"] == new["path"] and old["times"] != new["times"]:
        return "files were modified, by their times"
    return None


def require_same(recorded: Mapping[str, Json], now: Mapping[str, Json], folder: Path) -> None:
    """UserError if an input of the run in `folder` has changed. A missing input does not count as
    changed."""
    for key, old in recorded.items():
        path = Path(old["path"])
        # what a data set reads besides (run.add_inputs) is not in `now`: no data set is built yet
        new = now.get(key) or (fingerprint(path) if path.exists() else None)
        if new and (what := difference(old, new)):
            raise UserError(
                f"{key} has changed since this run began: {new['path']} ({what}). What the run "
                f"has computed, in {folder}, is of the earlier content. Put that back, or remove "
                "this folder to compute the run anew, or choose another outputs=... "
                f"{see('usage.md#interrupting-and-resuming')}"
            )
