"""The masks of runs, as masks.npz holds them: which covered weights are trained. Needs numpy alone."""
from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np

from dimred.errors import UserError

Masks = dict[str, np.ndarray]


def read_masks(run: Path) -> Masks:
    """A boolean array per weight, by name. UserError if the run has none, or they are damaged."""
    path = run / "masks.npz" if run.is_dir() else run
    if not path.is_file():
        raise UserError(f"no masks.npz in {run}: {lacking(run)}")
    try:
        with np.load(path, allow_pickle=False) as file:
            masks = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, RuntimeError, zipfile.BadZipFile,
            zlib.error) as error:
        raise damaged(path, error) from None
    if not masks:
        raise damaged(path, "it is empty")
    if wrong := [name for name, mask in masks.items() if mask.dtype != bool]:
        raise damaged(path, f"{wrong[0]} is {masks[wrong[0]].dtype}, and masks are bool")
    return masks


def lacking(run: Path) -> str:
    """Why a folder has not what finished runs have, and what to do."""
    if (run / "result.json").exists():
        return "the run has ended without it, or it was removed. Remove the folder and give the run's command again"
    why = "there is no such folder" if not run.exists() else \
        "the run is not finished" if (run / "config.yaml").exists() else "that is no run (it has no config.yaml)"
    return f"{why}. Name the folder of a finished run"


def damaged(path: Path, why: object) -> UserError:
    return UserError(f"{path} is damaged, or holds no masks ({why}). Name another run, or remove this one and give its "
                     "command again")


def content_of(masks: Masks) -> str:
    """What masks hold, as a checksum: names, shapes and bits."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(masks):
        digest.update(f"{name} {masks[name].shape}\n".encode() + np.packbits(masks[name]).tobytes())
    return digest.hexdigest()


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union; 1 if both are empty."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0
