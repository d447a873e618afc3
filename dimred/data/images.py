"""Names and contents of image files in a directory, a .zip or a .tar(.gz, .xz, .bz2)."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from dimred.data.files import files_below, reading
from dimred.data.layout import LAYOUT
from dimred.errors import UserError

SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".ppm", ".pgm", ".pbm", ".pnm",
    ".bmp", ".dib", ".tif", ".tiff", ".webp", ".tga", ".jp2", ".avif",
}  # fmt: skip
OPENERS: dict[str, Callable[..., Any]] = {  # of tars, by the last suffix
    ".tar": open, ".gz": gzip.open, ".tgz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open,
}  # fmt: skip
Member = tuple[str, bytes]


def members(path: Path) -> Iterator[Member]:
    """Relative name (with /) and content of every image in a directory or an archive. Nothing is
    extracted to disk.

    Folders of other files and empty folders are included, with a "/" at the end of the name and no
    content.
    """
    if path.is_dir():
        return directory_members(path)
    return zip_members(path) if path.suffix == ".zip" else tar_members(path, path)


def suitable(path: Path) -> Path:
    """The path. UserError unless it is a directory, or a file with the suffix of an archive that
    `members` can read."""
    if path.is_dir() or (path.is_file() and path.suffix in {".zip", *OPENERS}):
        return path
    problem = "has another type" if path.exists() else "does not exist"
    raise UserError(
        f"{path} {problem}; allowed is a directory, .zip, or .tar, .tar.gz, .tar.xz, .tar.bz2 of "
        f"images in {LAYOUT}. Put one there, or correct the path: dataset.path, or "
        "data_dir of a published set."
    )


def usable(name: str) -> str | None:
    """The name of a member if it is an image, else the name of its folder. None if it is hidden
    (._x, __MACOSX) or its path leads out of the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or any(part.startswith((".", "__MACOSX")) for part in parts):
        return None
    is_folder = name.endswith("/")
    if not is_folder and os.path.splitext(parts[-1])[1].lower() in SUFFIXES:
        return name
    folder = parts if is_folder else parts[:-1]
    return f"{'/'.join(folder)}/" if folder else None


def directory_members(folder: Path) -> Iterator[Member]:
    for name in files_below(folder):
        if usable(name) == name:
            yield name, b"" if name.endswith("/") else (folder / name).read_bytes()


def zip_members(path: Path) -> Iterator[Member]:
    # zipfile raises NotImplementedError for an unknown compression, RuntimeError for an encrypted
    # member.
    errors = zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError
    with reading(path, *errors), zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            if name := usable(entry):
                yield name, b"" if name.endswith("/") else archive.read(entry)


def tar_members(path: Path, source: Path | IO[bytes]) -> Iterator[Member]:
    """The images in the tar `source`, with the compression that the suffix of `path` says. Skips
    links and devices."""
    with (
        reading(path, tarfile.TarError, zlib.error, lzma.LZMAError),
        OPENERS[path.suffix](source, "rb") as plain,
    ):
        with tarfile.open(fileobj=plain, mode="r|") as archive:
            for member in archive:
                name = usable(f"{member.name}/" if member.isdir() else member.name)
                if name and name.endswith("/"):
                    yield name, b""
                elif name and member.isfile() and (file := archive.extractfile(member)):
                    yield name, file.read()
        # tarfile takes an archive that is cut between two members for a whole one, and stops before
        # the checksum of the compressed file. Reading on to the end finds both.
        while plain.read(1 << 20):
            pass
        if plain.tell() < archive.offset + tarfile.BLOCKSIZE:
            raise EOFError("the archive ends without an end mark")
