"""Downloads, checks and caches files of data sets."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dimred.errors import UserError, reason
from dimred.network import require_answer


def fetch(path: Path, urls: Sequence[str], md5: str, expected: str) -> Path:
    """The path of a file. If it is missing, it is downloaded from the first URL that works.

    UserError if no URL works. Its message ends with `expected`, which says where files belong."""
    problems = []
    for url in [] if path.exists() else urls:
        try:
            download(url, path, md5)
            break
        except (OSError, RuntimeError, HTTPException) as error:
            problems.append(f"{url}: {error}")
    require_regular(path)
    if path.exists():
        return path
    raise UserError(
        f"{path} is missing and its download failed ({'; '.join(problems)}). {expected}"
    )


def require_regular(path: Path | str) -> None:
    """UserError for a FIFO, a socket or a device, since reading it may never end."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise UserError(f"{path} is a FIFO, a socket or a device. Replace it by a regular file.")


def files_below(folder: Path) -> Iterator[str]:
    """Relative names (with /) of the files and directories below a directory, sorted. Those of
    directories end in "/".

    Follows links. UserError for a directory that cannot be listed, or a file that is not regular.
    """
    waiting = entries(folder, "")
    while waiting:
        name = waiting.pop()
        yield name
        if name.endswith("/"):
            waiting += entries(folder, name)


def entries(folder: Path, inside: str) -> list[str]:
    """The names in one directory, the last one first."""
    found = []
    with reading(folder / inside), os.scandir(folder / inside) as listed:
        for entry in listed:
            name = f"{inside}{entry.name}"
            if entry.is_dir():
                found.append(f"{name}/")
            elif entry.is_file():
                found.append(name)
            else:
                require_regular(folder / name)
    return sorted(found, reverse=True)


def download(url: str, path: Path, md5: str) -> None:
    """Download to a temporary folder and rename, so that a partial file is never used."""
    from torchvision.datasets.utils import download_url  # slow to import

    path.parent.mkdir(parents=True, exist_ok=True)
    require_answer(url)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
        download_url(url, folder, path.name, md5)
        os.replace(Path(folder, path.name), path)


class DamagedData(UserError):
    """A file that cannot be read as what it should be."""


def damaged_data(path: Path | str, why: object) -> DamagedData:
    return DamagedData(
        f"{path} is damaged or not the expected file ({why}). Delete it or replace it by a good "
        "copy."
    )


def unreadable(path: Path | str, error: Exception) -> DamagedData:
    """What is wrong with a path: nothing is there, it is of another kind, it may not be read, or
    its content is damaged."""
    place = getattr(error, "filename", None) or path
    if isinstance(error, (FileNotFoundError, NotADirectoryError)) and not os.path.exists(place):
        return DamagedData(f"There is no {place}. Correct the path, or put the data there.")
    if isinstance(error, IsADirectoryError):
        return DamagedData(f"{place} is a folder, and a file is expected. Name the file.")
    if isinstance(error, NotADirectoryError):
        return DamagedData(f"{place} is a file, and a folder is expected. Name the folder.")
    if isinstance(error, PermissionError):
        return DamagedData(f"{place} may not be read. Change its permissions.")
    return damaged_data(path, reason(error))


@contextmanager
def reading(path: Path | str, *errors: type[Exception]) -> Iterator[None]:
    """Convert `errors`, and errors of the file system, to DamagedData that names the path."""
    kinds: tuple[type[Exception], ...] = (OSError, EOFError, *errors)
    try:
        yield
    except kinds as error:
        raise unreadable(path, error) from error


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def checked(path: Path, md5: str) -> bytes:
    """The content of a file. UserError if its checksum is not `md5`."""
    with reading(path):
        content = path.read_bytes()
    if (found := md5_of(content)) != md5:
        raise damaged_data(path, f"its md5 is {found} instead of {md5}")
    return content


def remembered(
    key: object,
    make: Callable[[], dict[str, Tensor]],
    is_current: Callable[[dict[str, Tensor]], bool] = lambda found: True,
) -> dict[str, Tensor]:
    """The result of make(), cached on disk for later processes under `key` (its repr). It is made
    again unless `is_current`.

    The cache is a safetensors file in $DIMRED_CACHE or ~/.cache/dimred, with a checksum of key and
    content. It may be deleted at any time. If it cannot be written, nothing is cached.
    """
    folder = Path(os.environ.get("DIMRED_CACHE") or "~/.cache/dimred").expanduser()
    path = folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.safetensors"
    with suppress(OSError, SafetensorError), safe_open(path, framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        known = (file.metadata() or {}).get("checksum") == checksum(key, found)
        if known and is_current(found):
            return found
    tensors = make()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # a folder of its own for each process, since several may do this at the same time
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            save_file(tensors, Path(fresh, path.name), {"checksum": checksum(key, tensors)})
            os.replace(Path(fresh, path.name), path)
    except (OSError, SafetensorError):
        pass
    return tensors


def checksum(key: object, tensors: Mapping[str, Tensor]) -> str:
    """A checksum of a key and its tensors, which are on the CPU."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().data)
    return digest.hexdigest()
