"""Data sets in one .npz file."""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dimred.data.base import held_out
from dimred.data.files import reading, require_regular
from dimred.data.layout import split_of
from dimred.data.memory import Examples, Memory
from dimred.errors import UserError, listed

IMAGES = {"x", "image", "images", "data", "inputs", "features"}
LABELS = {"y", "label", "labels", "target", "targets"}
EXPECTED = "x_train, y_train, x_test, y_test, or train_images, train_labels, val_images, ..."


@dataclass(kw_only=True)
class NPZ(Memory):
    """Arrays whose names have a word for the split and one for images or labels; without splits, a
    fixed fifth of every class is the test set. See `Memory` for the other fields.

    Images are (n, H, W), (n, C, H, W) or (n, H, W, C), of pixels from 0 to 255 or of floats."""

    name: str
    path: str

    def read(self) -> tuple[Examples, ...]:
        path = Path(self.path).expanduser()
        require_regular(path)
        splits = self.splits_in(path)
        whole = splits.pop("", None)
        if whole and not splits:
            keep, held = held_out(whole.labels.numpy(), 1 / 5)
            return whole.at(keep), whole.at(held)
        if "test" not in splits and "val" in splits:
            splits["test"] = splits.pop("val")
        if "train" not in splits or "test" not in splits:
            raise UserError(
                f"{path} has no train and test set; expected are arrays named {EXPECTED}."
            )
        return tuple(splits[role] for role in ("train", "val", "test") if role in splits)

    def splits_in(self, path: Path) -> dict[str, Examples]:
        """The examples of every split; "" if names have none."""
        # object arrays are pickles, which numpy refuses with a ValueError
        with reading(path, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError):
            file = np.load(path, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("one array, not an .npz")
            found = {meaning: file[name] for name, meaning in meanings(path, file.files).items()}
            file.close()
        return {
            split: Examples(channels_first(images), torch.from_numpy(found[split, "labels"]))
            for (split, kind), images in found.items()
            if kind == "images" and (split, "labels") in found
        }


def meanings(path: Path, names: list[str]) -> dict[str, tuple[str, str]]:
    """What each array is: its split, and images or labels. UserError if two are the same, or an
    array lacks the other one."""
    found = {name: meaning_of(name) for name in names}
    used = {name: meaning for name, meaning in found.items() if meaning}
    for split, kind in used.values():
        other = "images" if kind == "labels" else "labels"
        count = [meaning for meaning in used.values() if meaning in ((split, kind), (split, other))]
        if len(count) != 2 or len(set(count)) != 2:
            raise UserError(
                f"{path} has {listed(sorted(names), 8)}; expected are images and labels of every "
                f"split, one array each: {EXPECTED}. Rename or remove the others."
            )
    return used


def meaning_of(name: str) -> tuple[str, str] | None:
    words = re.findall("[a-z]+", name.lower())
    kinds = {"images": IMAGES, "labels": LABELS}
    kind = [each for each, usual in kinds.items() if usual & set(words)]
    splits = [found for found in map(split_of, words) if found]
    if len(kind) != 1 or len(splits) > 1:
        return None
    return (splits[0] if splits else ""), kind[0]


def channels_first(images: np.ndarray) -> torch.Tensor:
    """Images (n, H, W, C) as (n, C, H, W): of 1 or 3 channels, and no such number second."""
    if images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(images))
