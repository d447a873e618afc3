"""Images in Hugging Face's `datasets`: parquet files, folders of `save_to_disk`, sets of the hub.

Rows are read from memory-mapped Arrow files, which `datasets` makes of parquet files once. It runs
no code of a data set (since its version 4) and loads no pickle."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimred.data.encoded import Chained, Collection
from dimred.data.files import damaged_data, files_below, reading
from dimred.data.layout import by_split, split_of_path
from dimred.errors import UserError, first_line, require
from dimred.network import hub

log = logging.getLogger("dimred")

SAVED = "dataset_dict.json", "state.json"  # one of them is in a folder of save_to_disk
HUB_NAME = r"[\w.-]+(/[\w.-]+)?"
LABEL_NAMES = "label", "labels"


@dataclass
class Rows(Chained):
    """The images in a column of tables, one table for each split."""

    path: str
    splits: Sequence[str]
    tables: Sequence[Any]
    column: str

    def __post_init__(self) -> None:
        super().__init__(len(table) for table in self.tables)

    def content(self, i: int) -> bytes:
        table, row = self.place(i)
        found = self.tables[table][row][self.column]
        if isinstance(found, dict):
            found = found["bytes"]
        if not isinstance(found, bytes):
            # a row may name a file instead; but paths in data are not trusted
            raise damaged_data(self.name(i), f"column {self.column} has no bytes of an image")
        return found

    def name(self, i: int) -> str:
        table, row = self.place(i)
        return f"{self.path}: row {row} of {self.splits[table]}"


def rows(path: str, image: str | None, label: str | None) -> Collection:
    """The images of a data set. image, label: their columns; None where there is only one that can
    be."""
    tables = load(path)
    features = next(iter(tables.values())).features
    image = image_column(path, features) if image is None else image
    label = label_column(path, features) if label is None else label
    for key, column in (("dataset.image", image), ("dataset.label", label)):
        require(column in features, key, column, f"a column of {path}: {', '.join(features)}")
    labels = {split: labels_of(path, table, label) for split, table in tables.items()}
    # the test set of a challenge has -1 for unknown labels
    known = [split for split, each in labels.items() if (each >= 0).any() or not len(each)]
    if not known:
        raise UserError(f"{path} has no labels from 0 on in column {label}. Choose another one.")
    pictures = [images_of(tables[split], image) for split in known]
    files = {Path(each["filename"]) for split in known for each in tables[split].cache_files}
    return Collection(
        Rows(path, known, pictures, image),
        by_split(known, [labels[split] for split in known], Path(path)),
        tuple(sorted(files)),
    )


def load(path: str) -> dict[str, Any]:
    """The splits of a data set, each a `datasets.Dataset`."""
    try:
        import datasets
    except ImportError:
        raise UserError(
            "dataset=huggingface needs the package datasets: pip install 'dimred[datasets]'"
        ) from None
    place = Path(path).expanduser()
    if not place.exists():
        require(
            bool(re.fullmatch(HUB_NAME, path)),
            *("dataset.path", path),
            "a parquet file, a folder of parquet files, a folder of save_to_disk, or a name on the "
            "hub such as cifar10",
        )
        return splits_of(of_hub(datasets, path))
    with reading(place, ValueError):
        if any((place / name).is_file() for name in SAVED):
            return splits_of(datasets.load_from_disk(str(place)))
        return splits_of(datasets.load_dataset("parquet", data_files=parquet_files(place)))


def of_hub(datasets: Any, name: str) -> Any:
    log.info("there is no file or folder %s here: looking for it on the hub", name)
    with hub() as unreachable:
        try:
            return datasets.load_dataset(name)
        except Exception as error:  # of the network, of the hub, or of its format
            why = f"{type(error).__name__}: {first_line(error)[:200]}"
            if unreachable:
                why = f"{unreachable}, and it is not in the cache of datasets"
            raise UserError(
                f"dataset.path={name} is neither a file or folder here nor can it be loaded from "
                f"the hub ({why}). Correct the path or the name, or load it once where there is a "
                "network"
            ) from None


def splits_of(found: Any) -> dict[str, Any]:
    return dict(found) if isinstance(found, dict) else {"train": found}


def parquet_files(path: Path) -> dict[str, list[str]]:
    """The parquet files at a path, by the split that their names or folders name."""
    names = [""]
    if path.is_dir():
        names = [name for name in files_below(path) if name.endswith(".parquet")]
    if not names or not (path / names[0]).name.endswith(".parquet"):
        raise UserError(
            f"{path} has no parquet file and is no folder of save_to_disk; allowed is a .parquet, "
            "or a folder of train-*.parquet with test-*.parquet or validation-*.parquet."
        )
    roles = [split_of_path(name) for name in names]
    if not any(roles):
        return {"train": [str(path / name) for name in names]}
    files: dict[str, list[str]] = {}
    for name, role in zip(names, roles, strict=True):
        files.setdefault(role or "others", []).append(str(path / name))
    return files


def image_column(path: str, features: Any) -> str:
    """The column of images, of bytes, or of structures with bytes."""
    found = [name for name, feature in features.items() if holds_images(feature)]
    return only("image", found, path, features)


def holds_images(feature: Any) -> bool:
    if isinstance(feature, dict):
        return "bytes" in feature
    return type(feature).__name__ == "Image" or getattr(feature, "dtype", "") == "binary"


def label_column(path: str, features: Any) -> str:
    found = [name for name, each in features.items() if type(each).__name__ == "ClassLabel"]
    return only(
        "label", found or [name for name in LABEL_NAMES if name in features], path, features
    )


def only(role: str, found: Sequence[str], path: str, features: Any) -> str:
    if len(found) != 1:
        number = "several columns" if found else "no column"
        raise UserError(
            f"{path} has {number} that can be the {role}; its columns are {', '.join(features)}. "
            f"Choose one: dataset.{role}=..."
        )
    return found[0]


def labels_of(path: str, table: Any, column: str) -> np.ndarray:
    found = np.asarray(table.with_format("numpy")[column][:])
    if found.dtype.kind not in "iu":
        raise UserError(
            f"{path} has labels of type {found.dtype} in column {column}; allowed are whole "
            "numbers from 0 on. Number them first, for instance by Dataset.class_encode_column."
        )
    if (found >= 0).any() and (found < 0).any():
        raise UserError(
            f"{path} has the label {found.min()} in column {column}; allowed are whole numbers "
            "from 0 on. Remove these rows, or number the classes from 0."
        )
    return found.astype(np.int64)


def images_of(table: Any, column: str) -> Any:
    """A table with this column alone, whose images are not decoded."""
    from datasets import Image

    pictures = table.select_columns([column])
    if isinstance(table.features[column], Image):
        pictures = pictures.cast_column(column, Image(decode=False))
    return pictures.with_format(None)
