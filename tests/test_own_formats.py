"""Hugging Face datasets and .npz files as data sets."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from small_data import PLAIN, everything, forking, same

from dimred.data import NPZ, huggingface
from dimred.errors import UserError

ROWS: dict[str, Any] = {
    **PLAIN, "name": "rows", "image": None, "label": None, "channels": 3, "in_memory": False,
    "workers": 0, "resize": 8, "skip_corrupted": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def caches(own_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of dimred and of datasets, and no network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def values(data: Any, split: str) -> list[float]:
    """The pixel of every image in a split; `PLAIN` normalises by 0.5 and 0.25."""
    images, _ = next(data.eval_batches(split))
    return ((images[:, 0, 3, 3] * 0.25 + 0.5) * 255).round().tolist()


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """Nine train rows in two files and three test rows, as the hub has them: structures of bytes
    and a path."""
    (tmp_path / "parquet/data").mkdir(parents=True)
    for name, numbers in (
        ("train-00000-of-00002", range(5)),
        ("train-00001-of-00002", range(5, 9)),
        ("test-00000-of-00001", range(9, 12)),
    ):
        images = [{"bytes": png(20 * i), "path": f"{i}.png"} for i in numbers]
        table = pa.table({"image": images, "label": [i % 3 for i in numbers]})
        pq.write_table(table, tmp_path / f"parquet/data/{name}.parquet")
    return tmp_path / "parquet"


def test_parquet_files_are_read_row_by_row(parquet: Path) -> None:
    data = huggingface(path=str(parquet), **ROWS)
    assert data.sizes == {"train": 9, "val": 0, "test": 3} and data.classes == 3
    assert values(data, "train") == [20 * i for i in range(9)]
    assert values(data, "test") == [180, 200, 220]
    assert next(data.eval_batches("train"))[1].tolist() == [i % 3 for i in range(9)]
    one = parquet / "data/train-00000-of-00002.parquet"
    assert huggingface(path=str(one), **ROWS).sizes == {"train": 4, "val": 0, "test": 1}


@forking
def test_rows_are_the_same_in_memory_and_in_any_number_of_workers(parquet: Path) -> None:
    alone, helped = (huggingface(path=str(parquet), **{**ROWS, "workers": n}) for n in (0, 2))
    assert same(alone.train_batches(4, 0, 1), helped.train_batches(4, 0, 1))
    loaded = huggingface(path=str(parquet), **{**ROWS, "in_memory": "auto"})
    assert type(loaded).__name__ == "Decoded"
    assert same(everything(loaded), everything(alone))


def test_a_saved_folder_is_read_with_its_columns(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (8, 8), (20 * i,) * 3) for i in range(6)]
    whole = datasets.Dataset.from_dict(
        {"picture": pictures, "kind": ["x", "y", "z"] * 2, "other": [0] * 6}
    )
    whole = whole.cast_column("picture", datasets.Image()).class_encode_column("kind")
    parts = datasets.DatasetDict({"train": whole.select(range(4)), "validation": whole})
    parts.save_to_disk(str(tmp_path / "saved"))
    data = huggingface(path=str(tmp_path / "saved"), **ROWS)
    assert data.sizes == {"train": 4, "val": 0, "test": 6}
    assert values(data, "test") == [20 * i for i in range(6)]
    assert next(data.eval_batches("test"))[1].tolist() == [0, 1, 2] * 2


def test_a_set_of_unknown_labels_is_not_the_test_set(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"image": [png(i) for i in range(6)], "label": [0, 1] * 3})
    hidden = datasets.Dataset.from_dict({"image": [png(1)], "label": [-1]})
    parts = datasets.DatasetDict({"train": rows, "validation": rows, "test": hidden})
    parts.save_to_disk(str(tmp_path / "saved"))
    assert huggingface(path=str(tmp_path / "saved"), **ROWS).sizes["test"] == 6


@pytest.mark.parametrize(
    ("columns", "options", "problem"),
    [
        ({"a": [b"x"], "b": [b"y"], "label": [0]}, {}, "several columns that can be the image"),
        ({"image": [b"x"], "class": [0]}, {}, "no column that can be the label.*image, class"),
        ({"image": [b"x"], "label": ["dog"]}, {}, "labels of type"),
        ({"image": [b"x"], "label": [0]}, {"label": "kind"}, "dataset.label=kind is not allowed"),
        ({"image": [b"x"], "label": [-1]}, {}, "no labels from 0 on"),
        ({"image": [b"x"] * 2, "label": [0, -1]}, {}, "the label -1 in column label"),
    ],
)
def test_unsuitable_columns_are_user_errors(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, str], problem: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=problem):
        huggingface(path=str(tmp_path / "x.parquet"), **{**ROWS, **options})


def test_paths_in_rows_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(7))
    row = {"bytes": None, "path": str(tmp_path / "secret.png")}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array([row] * 10, kind), "label": [0, 1] * 5})
    pq.write_table(table, tmp_path / "x.parquet")
    data = huggingface(path=str(tmp_path / "x.parquet"), **ROWS)
    with pytest.raises(UserError, match=r"x.parquet: row 0 of train .*no bytes of an image"):
        list(data.eval_batches("train"))


def test_what_is_not_there_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a file or folder here nor can it be loaded"):
        huggingface(path="no/such-data-set", **ROWS)
    with pytest.raises(UserError, match="a name on the hub"):
        huggingface(path=str(tmp_path / "nothing"), **ROWS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no parquet file"):
        huggingface(path=str(tmp_path / "empty"), **ROWS)
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"x.parquet is damaged"):
        huggingface(path=str(tmp_path / "x.parquet"), **ROWS)


# -- npz --------------------
GREY = np.arange(10 * 4 * 5, dtype=np.uint8).reshape(10, 4, 5)
LABELS = np.array([0, 1] * 5)


def saved(path: Path, **arrays: np.ndarray) -> NPZ:
    np.savez(path / "x.npz", **arrays)
    options = {**PLAIN, "mean": None, "std": None}
    return NPZ(name="npz", path=str(path / "x.npz"), **options)


def test_the_names_of_arrays_say_splits_and_kinds(tmp_path: Path) -> None:
    data = saved(tmp_path, x_train=GREY, y_train=LABELS, x_test=GREY[:4], y_test=LABELS[:4])
    assert data.sizes == {"train": 10, "val": 0, "test": 4} and data.shape == (1, 4, 5)
    data = saved(
        tmp_path, train_images=GREY, train_labels=LABELS[:, None], val_images=GREY[:3],
        val_labels=LABELS[:3, None], test_images=GREY[:4], test_labels=LABELS[:4, None],
    )  # fmt: skip
    assert data.sizes == {"train": 10, "val": 3, "test": 4}
    assert saved(tmp_path, images=GREY, labels=LABELS).sizes == {"train": 8, "val": 0, "test": 2}


def test_channels_may_be_last(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (10, 4, 5, 3), dtype=np.uint8)
    last = saved(tmp_path, x=colours, y=LABELS)
    first = saved(tmp_path, x=np.ascontiguousarray(colours.transpose(0, 3, 1, 2)), y=LABELS)
    assert last.shape == first.shape == (3, 4, 5)
    assert torch.equal(last.splits["train"].images, first.splits["train"].images)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"x_train": GREY}, "images and labels of every split"),
        ({"x_train": GREY, "y_train": LABELS}, "no train and test set"),
        ({"x": GREY, "images": GREY, "y": LABELS}, "images and labels of every split"),
        (
            {"x": np.array([{}] * 10, object), "y": LABELS},
            "damaged.*other things than arrays of numbers",
        ),
        ({"a": GREY, "b": LABELS}, "no train and test set"),
    ],
)
def test_unsuitable_arrays_are_user_errors(
    tmp_path: Path, arrays: dict[str, np.ndarray], problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        saved(tmp_path, **arrays)


def test_a_name_that_is_no_path_is_looked_for_on_the_hub_and_the_log_says_so(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "dimred", "train", "dataset=huggingface", "dataset.path=nope"]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=offline, capture_output=True, text=True)
    assert done.returncode == 1
    assert "there is no file or folder nope here: looking for it on the hub" in done.stderr
    assert "dataset.path=nope is neither a file or folder here nor can it be loaded" in done.stderr
    assert "cannot be reached: HF_HUB_OFFLINE is set" in done.stderr


def test_other_files_are_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", GREY)
    for content in (b"", b"text", (tmp_path / "x.npy").read_bytes()):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"x\.npz is damaged"):
            NPZ(name="npz", path=str(tmp_path / "x.npz"), **PLAIN)
