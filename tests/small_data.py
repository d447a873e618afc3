"""Settings of data sets, and small ones."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from dimred.data import (
    Data,
    Digits,
)

ROOT = Path(__file__).parents[1]


REAL = Path(os.environ.get("DIMRED_DATA") or ROOT / "../shared/data")


YAMLS = sorted((ROOT / "conf/dataset").glob("*.yaml"))


COLOURS = {"mean": [0.5] * 3, "std": [0.25] * 3}


PLAIN: dict[str, Any] = {
    **COLOURS,
    "val_fraction": 0.0,
    "resize": None,
    "crop_padding": 0,
    "flip": False,
}


FOLDER: dict[str, Any] = {
    **PLAIN,
    "name": "folder",
    "channels": None,
    "in_memory": True,
    "workers": 2,
    "skip_corrupted": False,
}


STREAM: dict[str, Any] = {
    **FOLDER,
    "in_memory": False,
    "resize": 16,
    "flip": True,
    "val_fraction": 0.2,
}


forking = pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # what DataLoader does by default on Linux


def config_of(path: Path) -> dict[str, Any]:
    """The data set's own values, without the recipe that goes with it."""
    return {
        key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "defaults"
    }


def real(name: str) -> Path:
    if not (REAL / name).exists():
        pytest.skip(f"no {name} in {REAL}; set DIMRED_DATA to the folder that has it")
    return REAL


def digits(**changes: Any) -> Digits:
    usual = {
        "val_fraction": 0.1,
        "resize": None,
        "mean": [0.3],
        "std": [0.4],
        "crop_padding": 2,
        "flip": True,
    }
    return Digits(**{**usual, **changes})


def same(left: Iterator[tuple[Tensor, Tensor]], right: Iterator[tuple[Tensor, Tensor]]) -> bool:
    pairs = list(zip(left, right, strict=True))
    return bool(pairs) and all(
        torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True)
    )


def everything(data: Data) -> Iterator[tuple[Tensor, Tensor]]:
    return chain.from_iterable(map(data.eval_batches, ("train", "val", "test")))


def tar_of(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
