"""masks.npz of a run: which covered weights are trained. Written at the end of a run (runs/run.py);
needs numpy alone."""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from dimred.errors import UserError, reason
from dimred.files import write

Masks = dict[str, np.ndarray]
MOST_DEFLATED = 1032  # bytes that one byte of a zip file can become


def write_masks(path: Path, masks: Mapping[str, np.ndarray]) -> None:
    """Write boolean arrays, one for each weight, in its shape and under its name."""
    arrays: dict[str, Any] = dict(masks)  # numpy's types forbid names such as allow_pickle
    content = BytesIO()
    np.savez_compressed(content, **arrays)
    write(path, content.getvalue())


def read_masks(run: Path) -> Masks:
    """A boolean array per weight, by name, of a run or of a file. UserError if there is none, if it
    is damaged, or if it holds other values than 0 and 1."""
    path = run / "masks.npz" if run.is_dir() else run
    if not path.is_file():
        raise UserError(f"no masks.npz in {run}: {lacking(run)}")
    try:
        with np.load(path, allow_pickle=False) as file:
            require_honest(file.zip)
            masks = {name: file[name] for name in file.files}
    except (
        OSError,
        ValueError,
        EOFError,
        TypeError,
        AttributeError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise damaged_masks(path, reason(error)) from None
    if not masks:
        raise damaged_masks(path, "it is empty")
    return {name: as_bool(mask, name, path) for name, mask in masks.items()}


def require_honest(archive: zipfile.ZipFile) -> None:
    """ValueError if the header of an array claims more bytes than the file can hold; called before
    memory is allocated for the array."""
    for entry in archive.infolist():
        with archive.open(entry) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_2_0
            if version == (1, 0):
                read = np.lib.format.read_array_header_1_0
            shape, _, dtype = read(file)
        size = math.prod(shape) * dtype.itemsize
        if size > entry.file_size or entry.file_size > MOST_DEFLATED * (entry.compress_size + 100):
            raise ValueError(
                f"{entry.filename} says that it has {size} bytes, which the file cannot hold"
            )


def as_bool(mask: np.ndarray, name: str, path: Path) -> np.ndarray:
    """A mask of booleans, or of integers or floats that are all 0 or 1."""
    if mask.dtype.kind not in "biuf":
        raise UserError(
            f"{path}: {name} is {mask.dtype}. A mask is an array of booleans, "
            "integers or floats: 1 where a weight is trained, 0 elsewhere"
        )
    other = mask[(mask != 0) & (mask != 1)]
    if other.size:
        raise UserError(
            f"{path}: {name} has the value {other.flat[0]:g}. A mask is 1 where a "
            "weight is trained and 0 elsewhere"
        )
    return mask.astype(bool)


def lacking(run: Path) -> str:
    """Why a folder lacks a file that finished runs have, and what to do."""
    if (run / "result.json").exists():
        return (
            "the run has ended without it, or it was removed. Remove the folder and give the run's "
            "command again"
        )
    if not run.exists():
        why = "there is no such folder"
    elif (run / "config.yaml").exists():
        why = "the run is not finished"
    else:
        why = "that is no run (it has no config.yaml)"
    return f"{why}. Name the folder of a finished run"


def damaged_masks(path: Path, why: object) -> UserError:
    return UserError(
        f"{path} is damaged, or holds no masks ({why}). Name another run, or remove this one and "
        "give its command again"
    )


def content_of(masks: Masks) -> str:
    """A checksum of masks: of their names, shapes and bits."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(masks):
        digest.update(f"{name} {masks[name].shape}\n".encode() + np.packbits(masks[name]).tobytes())
    return digest.hexdigest()


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union; 1 if both are empty."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0
