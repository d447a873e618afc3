"""Files that are replaced in one step, so that readers find the old one or the new one, whole."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from dimred.errors import UserError

Json = dict[str, Any]


def is_url(place: str) -> bool:
    """Whether it is a URL as fsspec reads them: PROTOCOL://... or PROTOCOL::..."""
    return re.match(r"[a-z][a-z0-9+.-]+(://|::)", place) is not None


def folder_to_write(place: str, key: str) -> Path:
    """The path of a folder. UserError, naming the key, for a URL: these can only be read."""
    if is_url(place):
        raise UserError(
            f"{key}={place} is a URL, and dimred writes to file systems alone. Name a folder and "
            "copy it there, or mount the store; tables and pictures read URLs: --runs URL"
        )
    return Path(place).expanduser()


def write(path: Path, content: bytes) -> None:
    """Replace a file in one step; its folder is made if need be."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}). What was written before is intact; make room "
            "or choose another place (of runs: outputs=...)"
        ) from None
    finally:  # if the process is killed here, the next one that holds the folder removes it
        with suppress(OSError):
            temporary.unlink()


def digest_of(content: bytes = b"") -> Any:
    """A hash object; `update` adds more content."""
    return hashlib.blake2b(content, digest_size=16)
