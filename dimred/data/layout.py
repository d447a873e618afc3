"""Assigns the images of a folder to splits and classes, by the names of their folders."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dimred.data.base import held_out
from dimred.errors import UserError, counted, listed, see

LAYOUT = "train/<class>/* with test/<class>/* or val/<class>/*, or only <class>/*"
EXPECTED = f"expected is {LAYOUT}. {see('data.md#class-folders')}"
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


class Folder(NamedTuple):
    """A folder, and whether it has images. One with images and folders in it counts twice."""

    parts: list[str]  # of its path
    images: bool
    number: int


def arrange(names: Iterable[str], path: Path) -> Layout:
    """The splits of images that are named as in LAYOUT, possibly within one more folder.

    A name that ends in "/" is a folder without images, and may be a class without images. Folders
    of splits have one of the USUAL names, in upper or lower case, also followed by "set", "data" or
    "images". Without a test split, the val split is the test set; without both, it is a fixed fifth
    of every class. UserError if the folders are ambiguous, or a class has no images.
    """
    folders, folder_of = grouped(names)
    used = unwrapped(folders)
    splits = splits_in(used, path)
    depth = 1 if splits else 0
    placed = [folder for folder in used if len(folder.parts) > depth]
    first = splits.get("train", "")
    classes = sorted({each.parts[depth] for each in placed if top(each, depth) == first})
    if len(classes) < 2:
        images = sum(folders[number].images for number in folder_of)
        raise UserError(
            f"{path} has {counted(images, 'image')} in {counted(len(classes), 'class folder')}; "
            f"{EXPECTED}"
        )
    found = {}
    for role, name in (splits or {"train": ""}).items():
        here = [folder for folder in placed if top(folder, depth) == name and folder.images]
        labels = labels_of([(each.number, each.parts[depth]) for each in here], classes, name)
        found[role] = part(labels, folder_of, len(folders))
    require_images_of_all(found["train"], classes, f"{path}/{first}".rstrip("/"))
    return divided(found, splits, path, ignored(used, splits))


def grouped(names: Iterable[str]) -> tuple[list[Folder], np.ndarray]:
    """The folders of names, and for each name the number of its folder, int32."""
    numbers: dict[tuple[str, bool], int] = {}
    folder_of = array("i")
    for name in names:
        folder, _, file = name.rpartition("/")
        folder_of.append(numbers.setdefault((folder, bool(file)), len(numbers)))
    folders = [
        Folder(folder.split("/") if folder else [], images, number)
        for (folder, images), number in numbers.items()
    ]
    return folders, np.array(folder_of, np.int32)


def unwrapped(folders: list[Folder]) -> list[Folder]:
    """The folders without those that contain all images."""
    images = [folder.parts for folder in folders if folder.images]
    around = {parts[0] for parts in images if parts}
    if len(around) != 1 or split_of(*around) or any(len(parts) < 2 for parts in images):
        return folders
    inside = [folder for folder in folders if folder.parts and folder.parts[0] in around]
    return unwrapped([folder._replace(parts=folder.parts[1:]) for folder in inside])


def top(folder: Folder, depth: int) -> str:
    return folder.parts[0] if depth else ""


def split_of(folder: str) -> str | None:
    """The split that a folder's name stands for: "train" for Train, training_set, train-images."""
    word = re.sub(r"[\W_]", "", folder.lower())
    word = re.sub(r"(set|data|images)$", "", word)
    return next((split for split, usual in USUAL.items() if word in usual), None)


def splits_in(used: list[Folder], path: Path) -> dict[str, str]:
    """The folder of every split; empty if the folders are classes."""
    images = [folder.parts for folder in used if folder.images and folder.parts]
    folders = sorted({parts[0] for parts in images})
    named: dict[str, list[str]] = {}
    for folder in folders:
        if split := split_of(folder):
            named.setdefault(split, []).append(folder)
    # One class may be called "train" or "dev", but classes "train" and "test" together are splits.
    has_classes = any(split_of(parts[0]) == "train" and len(parts) > 1 for parts in images)
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
        raise UserError(f"{path} has {listed}, but no train/; {EXPECTED}")
    return {split: same[0] for split, same in named.items()}


def labels_of(
    here: list[tuple[int, str]], classes: list[str], folder: str
) -> list[tuple[int, int]]:
    """The numbers of folders and of their classes. UserError for a class that is not in train."""
    number = {label: i for i, label in enumerate(classes)}
    if unknown := {label for _, label in here} - number.keys():
        raise UserError(
            f"The class folders {sorted(unknown)[:5]} are in {folder}/ but not in train/. Train "
            "and test must have the same classes: rename or remove these folders."
        )
    return [(i, number[label]) for i, label in here]


def part(labels: list[tuple[int, int]], folder_of: np.ndarray, folders: int) -> Split:
    """The images in some folders, which are given with their labels."""
    label_of = np.full(folders, -1)
    for folder, label in labels:
        label_of[folder] = label
    found = label_of[folder_of]
    positions = np.flatnonzero(found >= 0)
    return Split(positions, found[positions])


def by_split(names: Sequence[str], labels: Sequence[np.ndarray], path: Path) -> Layout:
    """The splits of files that hold many examples each, with the labels of all their examples.

    A file belongs to the split that a word of its path names: train-0001.tar, test/0001.tar. Where
    none does, all are train files. UserError for a path that names two splits, and without a train
    file."""
    roles = [split_of_path(name) for name in names]
    if not any(roles):
        roles = ["train"] * len(names)
    unused = [name for name, role in zip(names, roles, strict=True) if role is None]
    notes = [f"{name} is neither train, val nor test and is ignored" for name in unused[:3]]
    role_of = np.repeat(np.array(roles, object), [len(each) for each in labels])
    every = np.concatenate(labels)
    found = {}
    for role in USUAL:
        positions = np.flatnonzero(role_of == role)
        if len(positions):
            found[role] = Split(positions, every[positions])
    if "train" not in found:
        raise UserError(
            f"{path} has {listed(names)}, but no train examples. Name the files train-*, and val-* "
            "or test-*."
        )
    return divided(found, {role: role for role in found}, path, notes)


def split_of_path(name: str) -> str | None:
    words = set(re.findall(r"[a-z]+", name.lower()))
    found = [split for split, usual in USUAL.items() if words & usual]
    if len(found) > 1:
        raise UserError(
            f"{name} names the splits {' and '.join(found)}. Rename it, so that it names one."
        )
    return found[0] if found else None


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
            notes.append(f"the images in {splits[split]}/ are in no class folders and are not used")
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


def ignored(used: list[Folder], splits: Mapping[str, str]) -> list[str]:
    folders = {folder.parts[0] for folder in used if folder.images and folder.parts}
    others = folders - set(splits.values())
    listed = ", ".join(f"{each}/" for each in sorted(others)[:5])
    return [f"{listed} is neither train, val nor test and is ignored"] if splits and others else []
