"""dimred mask: which weights runs have trained, and what two of them have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from dimred.cli.arguments import flag
from dimred.errors import UserError, nearest
from dimred.runs.printing import percent, table
from dimred.storage.masks import Masks, overlap, read_masks

USAGE = "dimred mask show RUN [--json], or dimred mask diff RUN RUN [--json]"
BAR = 30  # characters


def mask(arguments: list[str]) -> int:
    as_json = flag(arguments, "--json")
    if not arguments:
        raise UserError(f"usage: {USAGE}")
    name, *runs = arguments
    if name not in ("show", "diff"):
        raise UserError(f"unknown command mask {name}. {nearest(name, ['show', 'diff'])}")
    if len(runs) != {"show": 1, "diff": 2}[name]:
        raise UserError(f"usage: {USAGE} (got {len(runs)} runs)")
    folders = [Path(run).expanduser() for run in runs]
    first, *others = map(read_masks, folders)
    if name == "show":
        shown = counts(first, nonzero_of(folders[0]))
        print(json.dumps(shown, indent=2) if as_json else bars(shown))
    else:
        require_alike(first, others[0], *folders)
        compared = compare(first, others[0])
        print(json.dumps(compared, indent=2) if as_json else overlaps(compared))
    return 0


# -- one run --------------------
def nonzero_of(run: Path) -> dict[str, int]:
    """How many weights of each layer are not zero, where result.json says so."""
    try:
        layers = json.loads((run / "result.json").read_text())["layers"]
        return {name: layer["nonzero"] for name, layer in layers.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def counts(masks: Masks, nonzero: dict[str, int]) -> dict[str, Any]:
    layers = {
        name: {
            "shape": list(m.shape),
            "total": m.size,
            "trained": int(np.count_nonzero(m)),
            "nonzero": nonzero.get(name),
        }
        for name, m in masks.items()
    }
    return {
        "layers": layers,
        "total": sum(m.size for m in masks.values()),
        "trained": sum(int(np.count_nonzero(m)) for m in masks.values()),
        "nonzero": sum(nonzero[name] for name in masks) if masks.keys() <= nonzero.keys() else None,
    }


def bars(shown: dict[str, Any]) -> str:
    rows = [
        (name, "x".join(map(str, layer["shape"])), *numbers(layer))
        for name, layer in shown["layers"].items()
    ]
    return table(
        ("layer", "shape", "total", "trained", "", "", "nonzero"),
        [*rows, ("all", "", *numbers(shown))],
    )


def numbers(layer: dict[str, Any]) -> tuple[object, ...]:
    trained, total, nonzero = layer["trained"], max(1, layer["total"]), layer["nonzero"]
    return (
        layer["total"],
        trained,
        percent(trained / total),
        bar(trained / total),
        "" if nonzero is None else f"{nonzero} ({percent(nonzero / total)})",
    )


def bar(fraction: float) -> str:
    """Something, wherever there is something."""
    full = min(BAR, round(BAR * fraction)) or int(fraction > 0)
    return "█" * full + "░" * (BAR - full)


# -- two runs --------------------
def require_alike(one: Masks, other: Masks, a: Path, b: Path) -> None:
    """UserError if they are not of the same weights."""
    for masks, others, run in ((one, other, a), (other, one, b)):
        if only := sorted(masks.keys() - others.keys()):
            raise UserError(
                f"the runs have other layers: only {run} has {', '.join(only[:3])}"
                f"{f' and {len(only) - 3} more' if only[3:] else ''}. Compare runs of the same model"
            )
    for name, mask in one.items():
        if mask.shape != other[name].shape:
            raise UserError(
                f"{name} is {'x'.join(map(str, mask.shape))} in {a}, and "
                f"{'x'.join(map(str, other[name].shape))} in {b}. Compare runs of the same model, on "
                "images of the same size"
            )


def compare(one: Masks, other: Masks) -> dict[str, Any]:
    layers = {name: common(one[name], other[name]) for name in one}
    return {
        "layers": layers,
        **common(
            *(np.concatenate([masks[name].ravel() for name in one]) for masks in (one, other))
        ),
    }


def common(one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    both = int(np.count_nonzero(one & other))
    return {
        "overlap": overlap(one, other),
        "both": both,
        "only_first": int(np.count_nonzero(one)) - both,
        "only_second": int(np.count_nonzero(other)) - both,
        "total": one.size,
    }


def overlaps(compared: dict[str, Any]) -> str:
    rows = [
        (
            name,
            f"{layer['overlap']:.4f}",
            bar(layer["overlap"]),
            layer["both"],
            layer["only_first"],
            layer["only_second"],
            layer["total"],
        )
        for name, layer in [*compared["layers"].items(), ("all", compared)]
    ]
    return table(("layer", "overlap", "", "both", "only first", "only second", "total"), rows)
