"""Runs at a URL, for reading: s3://, gs://, http://, zip://, memory://, whatever fsspec knows.

A `Remote` has what reports use of `pathlib.Path`. Files of one name are fetched at once for all
runs, since a request takes longer than such a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from textwrap import shorten
from types import SimpleNamespace
from typing import Any, TypeAlias

from dimred.errors import UserError
from dimred.files import is_url
from dimred.network import require_answer

#: what is fetched for all runs at once
FETCHED = ("config.yaml", "result.json", "metrics.jsonl")
#: requests at once to a server that has to be asked folder by folder
AT_ONCE = 16
#: characters of the reason why a URL cannot be read: some libraries list all that they have tried
REASON = 300
#: packages of the file systems that fsspec itself does not include
PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    "smb": "smbprotocol",
    "hf": "huggingface_hub",
}


class Remote:
    """A file or a folder of a file system of fsspec."""

    def __init__(self, files: Files, path: str) -> None:
        self.files, self.path = files, path.rstrip("/")

    def __truediv__(self, name: str) -> Remote:
        return Remote(self.files, f"{self.path}/{name}")

    def __str__(self) -> str:
        # of zip://FOLDER::FILE.zip, the first part is the place in the archive
        first, chained, others = self.files.url.partition("::")
        below = self.path.removeprefix(self.files.root)
        return f"{first.rstrip('/')}/{below.lstrip('/')}".rstrip("/") + chained + others

    def __repr__(self) -> str:
        return f"Remote({str(self)!r})"

    def __hash__(self) -> int:
        return hash(str(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and str(self) == str(other)

    def __lt__(self, other: Remote) -> bool:
        return self.path < other.path

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> Remote:
        return Remote(self.files, self.path.rpartition("/")[0])

    def resolve(self) -> Remote:
        return self

    def folders_with(self, names: Collection[str]) -> list[Place]:
        """All folders below that have one of these files, in the order of their paths."""
        paths = [path.rpartition("/") for path in self.files.listed]
        found = {folder for folder, _, name in paths if name in names}
        return [Remote(self.files, folder) for folder in sorted(found)]

    def is_dir(self) -> bool:
        inside = f"{self.path}/"
        return any(path.startswith(inside) for path in self.files.listed)

    def is_file(self) -> bool:
        return self.path in self.files.listed

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def read_bytes(self) -> bytes:
        """OSError if it cannot be read."""
        return self.files.read(self.path)

    def read_text(self, errors: str = "strict") -> str:
        return self.read_bytes().decode(errors=errors)

    def stat(self) -> Any:
        """Its st_mtime, in seconds; 0 where the file system does not tell."""
        try:
            return SimpleNamespace(st_mtime=self.files.system.modified(self.path).timestamp())
        except (NotImplementedError, KeyError, OSError):
            return SimpleNamespace(st_mtime=0.0)


class Files:
    """A file system and what lies below one place of it, listed once."""

    def __init__(self, system: Any, root: str, url: str) -> None:
        self.system, self.root, self.url = system, root.rstrip("/"), url
        self._fetched: dict[str, dict[str, Any]] = {}

    @cached_property
    def listed(self) -> dict[str, dict[str, Any]]:
        """All files, by their paths."""
        return tree(self.system, self.root)

    def read(self, path: str) -> bytes:
        if path not in self.listed:
            raise FileNotFoundError(2, "no such file", path)
        name = path.rpartition("/")[2]
        if name in FETCHED and isinstance(found := self._all(name).get(path), bytes):
            return found
        try:
            return bytes(self.system.cat_file(path))
        except Exception as error:  # of any file system
            raise OSError(f"{path} cannot be fetched ({error})") from None

    def _all(self, name: str) -> dict[str, Any]:
        """The contents of all files of this name; where one cannot be fetched, the error."""
        if name not in self._fetched:
            wanted = [path for path in self.listed if path.rpartition("/")[2] == name]
            how = {"batch_size": AT_ONCE} if is_asked_by_folder(self.system) else {}
            self._fetched[name] = dict(self.system.cat(wanted, on_error="return", **how))
        return self._fetched[name]


def tree(system: Any, root: str) -> dict[str, Any]:
    """All files below a folder, by their paths; none if there is no such folder.

    A store is asked for all files at once. Other servers are asked for one folder at a time, of
    which fsspec would ask for one after the other, and leave out those that do not answer."""
    if not is_asked_by_folder(system):
        return dict(system.find(root, detail=True))
    found: dict[str, Any] = {}
    level = [root]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        while level:
            answers = threads.map(partial(entries_of, system), level)
            entries = [*chain.from_iterable(answers)]
            level = [each["name"] for each in entries if each["type"] == "directory"]
            found |= {each["name"]: each for each in entries if each["type"] != "directory"}
    return found


def is_asked_by_folder(system: Any) -> bool:
    """Whether fsspec has no better way to list this file system."""
    from fsspec.asyn import AsyncFileSystem

    return getattr(type(system), "_find", None) is AsyncFileSystem._find


def entries_of(system: Any, folder: str) -> Iterable[dict[str, Any]]:
    """What a folder holds: nothing if it is no longer there."""
    try:
        entries = system.ls(folder, detail=True)
    except FileNotFoundError:
        return []
    # pages of some servers have links to the folder itself and to the one above
    return [each for each in entries if not re.search(r"/\.{1,2}/?$", each["name"])]


Place: TypeAlias = Path | Remote


def place_of(name: str | os.PathLike[str]) -> Place:
    """A folder by its path or its URL. UserError if a URL cannot be read."""
    return remote(name) if isinstance(name, str) and is_url(name) else Path(name).expanduser()


def remote(url: str) -> Remote:
    """The folder at a URL. UserError if it cannot be read."""
    try:
        import fsspec
    except ImportError:
        raise UserError(
            f"{url} needs fsspec, which is not installed. Install it: pip install 'dimred[fsspec]'"
        ) from None
    try:
        for part in url.split("::"):  # zip://FOLDER::https://HOST/FILE.zip
            if part.startswith(("http://", "https://")):
                require_answer(part)
        system, root = fsspec.core.url_to_fs(url)
        files = Files(system, root, url)
        files.listed  # noqa: B018 (what is wrong with the URL is an error here)
    except ImportError as error:
        packages = [PACKAGES[each] for each in re.findall(r"(\w+)://", url) if each in PACKAGES]
        hint = f". Install it: pip install {' '.join(packages)}" if packages else ""
        raise UserError(f"{url} needs another package ({error}){hint}") from None
    except Exception as error:  # of any file system
        reason = shorten(str(error), REASON, placeholder=" ...") or type(error).__name__
        raise UserError(
            f"{url} cannot be read ({reason}). Check the address, your rights and the network"
        ) from None
    return Remote(files, root)
