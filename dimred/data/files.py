"""Files of data sets: downloaded whole or not at all, verified by checksums; and a cache."""

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

from dimred.errors import UserError


def fetch(path: Path, urls: Sequence[str], md5: str, expected: str) -> Path:
    """`path`, downloaded from the first of `urls` that works if it is missing.

    UserError if that fails (no network, unwritable folder), with the sentence `expected`: which
    files belong where."""
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
    """UserError for a FIFO, a socket or a device: reading it may never end."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise UserError(
            f"{path} is no regular file (but a FIFO, a socket or a device). Replace it by a file."
        )


def files_below(folder: Path) -> Iterator[str]:
    """Names (relative, with /) of the files below a directory, and with a "/" at the end of the
    directories.

    Links are followed. UserError for what cannot be listed or is no regular file.
    """
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        with reading(folder / inside):
            entries = list(os.scandir(folder / inside))
        for entry in entries:
            name = f"{inside}{entry.name}"
            if entry.is_dir():
                yield f"{name}/"
                waiting.append(f"{name}/")
            elif entry.is_file():
                yield name
            else:
                require_regular(folder / name)


def download(url: str, path: Path, md5: str) -> None:
    """Download into a folder beside `path` first, so that a partial file is never used."""
    from torchvision.datasets.utils import download_url  # slow to import

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
        download_url(url, folder, path.name, md5)
        os.replace(Path(folder, path.name), path)


def damaged_data(path: Path | str, why: object) -> UserError:
    return UserError(
        f"{path} is damaged or not what it should be ({why}). Delete it or replace it by a good "
        "copy."
    )


@contextmanager
def reading(path: Path | str, *errors: type[Exception]) -> Iterator[None]:
    """Turn `errors`, and errors of the file system, into a UserError that names `path`."""
    kinds: tuple[type[Exception], ...] = (OSError, EOFError, *errors)
    try:
        yield
    except kinds as error:
        raise damaged_data(path, f"{type(error).__name__}: {error}") from error


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def checked(path: Path, md5: str) -> bytes:
    """The content of a file. UserError if its checksum is not `md5`."""
    with reading(path):
        content = path.read_bytes()
    if (found := md5_of(content)) != md5:
        raise damaged_data(path, f"its md5 is {found} instead of {md5}")
    return content


def remembered(key: object, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """make(), or what it returned for the same key (by its repr) in an earlier process; a cache
    that may be lost.

    Kept as safetensors in $DIMRED_CACHE or ~/.cache/dimred, with a checksum of key and content. A
    folder that cannot be written only means no cache.
    """
    folder = Path(os.environ.get("DIMRED_CACHE") or "~/.cache/dimred").expanduser()
    path = folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.safetensors"
    with suppress(OSError, SafetensorError), safe_open(path, framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if (file.metadata() or {}).get("checksum") == checksum(key, found):
            return found
    tensors = make()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder
        ) as fresh:  # two processes may do this at the same time
            save_file(tensors, Path(fresh, path.name), {"checksum": checksum(key, tensors)})
            os.replace(Path(fresh, path.name), path)
    except (OSError, SafetensorError):
        pass
    return tensors


def checksum(key: object, tensors: Mapping[str, Tensor]) -> str:
    """The checksum of a key and of its tensors, on the CPU."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().data)
    return digest.hexdigest()
