"""Assigns the images of a folder to splits and classes, by the names of their folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dimred.data.base import held_out
from dimred.errors import UserError

LAYOUT = "train/<class>/* with test/<class>/* or val/<class>/*, or only <class>/*"
USUAL = {
    "train": {"train", "training"},
    "val": {"val", "valid", "validate", "validation", "dev", "eval", "evaluation"},
    "test": {"test", "testing"},
}


class Split(NamedTuple):
    positions: np.ndarray  # int64 (n,), in the list of names
    labels: np.ndarray  # int64 (n,), position of the class among the sorted class names

    def at(self, chosen: np.ndarray) -> Split:
        return Split(self.positions[chosen], self.labels[chosen])


class Layout(NamedTuple):
    train: Split
    val: Split | None  # None: to be held out of the train split
    test: Split
    notes: list[str]  # decisions to tell the user

    def parts(self) -> dict[str, Split]:
        """In the order train, val, test."""
        found = {"train": self.train, "val": self.val, "test": self.test}
        return {split: part for split, part in found.items() if part is not None}


def arrange(names: list[str], path: Path) -> Layout:
    """The splits of images that are named as in LAYOUT, possibly within one more folder.

    A name that ends in "/" is a folder without images, and may be a class without images. Folders
    of splits have one of the USUAL names, in upper or lower case, also followed by "set", "data" or
    "images". Without a test split, the val split is the test set; without both, it is a fixed fifth
    of every class. UserError if the folders are ambiguous, or a class has no images.
    """
    paths = unwrapped([name.split("/") for name in names])
    splits = splits_in(paths, path)
    depth = 1 if splits else 0
    placed = [
        (tops(parts, depth), parts, i) for i, parts in enumerate(paths) if len(parts) > depth + 1
    ]
    first = splits.get("train", "")
    classes = sorted({parts[depth] for top, parts, _ in placed if top == first})
    if len(classes) < 2:
        images = sum(not name.endswith("/") for name in names)
        raise UserError(
            f"{path} has {images} images in {len(classes)} class folders; expected is {LAYOUT}."
        )
    found = {
        role: part(placed, folder, depth, classes)
        for role, folder in (splits or {"train": ""}).items()
    }
    require_images_of_all(found["train"], classes, f"{path}/{first}".rstrip("/"))
    return divided(found, splits, path, ignored(paths, splits))


def unwrapped(paths: list[list[str]]) -> list[list[str]]:
    """The paths without the folders that contain all images."""
    images = [parts for parts in paths if parts[-1]]
    around = {parts[0] for parts in images}
    if len(around) != 1 or split_of(*around) or any(len(parts) < 3 for parts in images):
        return paths
    return unwrapped([parts[1:] for parts in paths if parts[0] in around])


def tops(parts: list[str], depth: int) -> str:
    return parts[0] if depth else ""


def split_of(folder: str) -> str | None:
    """The split that a folder's name stands for: "train" for Train, training_set, train-images."""
    word = re.sub(r"[\W_]", "", folder.lower())
    word = re.sub(r"(set|data|images)$", "", word)
    return next((split for split, usual in USUAL.items() if word in usual), None)


def splits_in(paths: list[list[str]], path: Path) -> dict[str, str]:
    """The folder of every split; empty if the folders are classes."""
    images = [parts for parts in paths if parts[-1] and len(parts) > 1]
    folders = sorted({parts[0] for parts in images})
    named: dict[str, list[str]] = {}
    for folder in folders:
        if split := split_of(folder):
            named.setdefault(split, []).append(folder)
    # One class may be called "train" or "dev", but classes "train" and "test" together are splits.
    has_classes = any(split_of(parts[0]) == "train" and len(parts) > 2 for parts in images)
    in_words = sum(map(len, named.values())) == len(folders)
    if not has_classes and not (len(named) > 1 and ("train" in named or in_words)):
        return {}
    for split, same in named.items():
        if len(same) > 1:
            listed = " and ".join(f"{each}/" for each in same)
            raise UserError(
                f"{path} has {listed}, which both mean {split}. Keep one, or rename the others."
            )
    if "train" not in named:
        listed = " and ".join(f"{each}/" for each in folders)
        raise UserError(f"{path} has {listed}, but no train/; expected is {LAYOUT}.")
    return {split: same[0] for split, same in named.items()}


def part(
    placed: list[tuple[str, list[str], int]], folder: str, depth: int, classes: list[str]
) -> Split:
    """The images in the folder of a split; "" is the folder of all images."""
    number = {label: i for i, label in enumerate(classes)}
    here = [(i, parts[depth]) for top, parts, i in placed if top == folder and parts[-1]]
    if unknown := {label for _, label in here} - number.keys():
        raise UserError(
            f"The class folders {sorted(unknown)[:5]} are in {folder}/ but not in train/. Train "
            "and test must have the same classes: rename or remove these folders."
        )
    return Split(
        np.array([i for i, _ in here], np.int64),
        np.array([number[label] for _, label in here], np.int64),
    )


def require_images_of_all(train: Split, classes: list[str], path: str) -> None:
    counts = np.bincount(train.labels, minlength=len(classes))
    empty = [label for label, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise UserError(
            f"The class folders {empty[:5]} in {path} have no image that dimred can read. Add "
            "images, convert those that are there (to PNG, say), or remove these folders."
        )


def divided(
    found: Mapping[str, Split], splits: Mapping[str, str], path: Path, notes: list[str]
) -> Layout:
    """Train, val and test from the splits that were found. Appends a line to `notes` for each
    decision."""
    train, val, test = (found.get(split) for split in USUAL)
    assert train
    for split in ("val", "test"):
        if split in found and not len(found[split].labels):
            notes.append(f"the images in {splits[split]}/ lie in no class folders and are not used")
    if val and not len(val.labels):
        val = None
    if test and not len(test.labels):
        test = None
    if test and val:
        notes.append(f"{splits['val']}/ is the validation split; dataset.val_fraction is not used")
        return Layout(train, val, test, notes)
    if val:
        notes.append(
            f"{splits['val']}/ is the test set, because there is no other; the validation split "
            f"is cut from {splits['train']}/ (dataset.val_fraction)"
        )
    if not (test or val):
        keep, held = held_out(train.labels, 1 / 5)
        train, test = train.at(keep), train.at(held)
    return Layout(train, None, test or val or train.at(np.empty(0, np.int64)), notes)


def ignored(paths: list[list[str]], splits: Mapping[str, str]) -> list[str]:
    others = {parts[0] for parts in paths if parts[-1] and len(parts) > 1} - set(splits.values())
    listed = ", ".join(f"{each}/" for each in sorted(others)[:5])
    return [f"{listed} is neither train, val nor test and is ignored"] if splits and others else []
