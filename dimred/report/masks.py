"""The masks of two runs, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dimred.errors import UserError, listed
from dimred.storage.masks import Masks, overlap


def require_same_layers(one: Masks, other: Masks, a: Path, b: Path) -> None:
    """UserError if the masks are not of layers with the same names and shapes."""
    for masks, others, run in ((one, other, a), (other, one, b)):
        only = sorted(masks.keys() - others.keys())
        if only:
            raise UserError(
                f"the runs have different layers: only {run} has {listed(only)}. "
                "Compare runs of the same model"
            )
    for name, mask in one.items():
        if mask.shape != other[name].shape:
            shapes = ("x".join(map(str, each.shape)) for each in (mask, other[name]))
            raise UserError(
                f"{name} is {next(shapes)} in {a}, and {next(shapes)} in {b}. Compare runs of the "
                "same model, on images of the same size"
            )


def compare(one: Masks, other: Masks) -> dict[str, Any]:
    layers = {name: common(one[name], other[name]) for name in one}
    whole = [np.concatenate([masks[name].ravel() for name in one]) for masks in (one, other)]
    return {"layers": layers, **common(*whole)}


def common(one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    both = int((one & other).sum())
    return {
        "overlap": overlap(one, other),
        "both": both,
        "only_first": int(one.sum()) - both,
        "only_second": int(other.sum()) - both,
        "total": one.size,
    }
