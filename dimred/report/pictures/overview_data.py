"""What the overview page needs to compare two runs side by side, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dimred.report.compose import Json, flat
from dimred.report.pictures.metrics import series
from dimred.report.pictures.names import plain
from dimred.report.pictures.points import Point, Setting, layer_shares
from dimred.report.runs import Run

MOST_POINTS = 40  # of a curve


def comparison_data(settings: Sequence[Setting]) -> str:
    """Configurations without what all have in common; of each run its group, seed, validation
    accuracy over epochs, and densities of layers. Safe as the text of an element: it has neither <
    nor &."""
    points = [(setting, point) for setting in settings for point in setting.points]
    configs = [texts_of(point) for _, point in points]
    common: dict[str, str] = {}
    if configs:
        common = {k: v for k, v in configs[0].items() if all(c.get(k) == v for c in configs)}
    # of layers, and of epochs, the runs have few different lists
    names: dict[tuple[str, ...], int] = {}
    epochs: dict[tuple[float, ...], int] = {}
    groups, runs = [], []
    for i, ((setting, point), config) in enumerate(zip(points, configs, strict=True)):
        layers = names.setdefault(tuple(layer_shares(point.runs[0])), len(names))
        own = {key: value for key, value in config.items() if key not in common}
        groups.append({"title": name_of(point, setting), "config": own, "layers": layers})
        runs += [data_of(run, i, epochs) for run in point.runs]
    document = {"groups": groups, "layers": [*names], "epochs": [*epochs], "runs": runs}
    text = json.dumps(document, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("&", "\\u0026")


def name_of(point: Point, setting: Setting) -> str:
    sparsity = "" if point.sparsity is None else f" {100 * point.sparsity:.4g} %"
    return f"{point.method}{sparsity}: {setting.title}"


def texts_of(point: Point) -> dict[str, str]:
    """The values of a configuration as text, without the seed."""
    return {key: plain(value, 200) for key, value in flat(point.runs[0].description).items()}


def data_of(run: Run, group: int, epochs: dict[tuple[float, ...], int]) -> Json:
    """`epochs` gets those of the run, if they are new."""
    at, values = curve_of(run)
    # thousandths are enough for a bar
    shares = [round(share, 3) for share in layer_shares(run).values()]
    found: dict[str, Any] = {"g": group, "seed": run.seed, "folder": plain(run.folder, 300)}
    curve = {"epochs": epochs.setdefault(at, len(epochs)), "values": values}
    return found | curve | {"shares": shares}


def curve_of(run: Run) -> tuple[tuple[float, ...], list[int]]:
    """Epochs and validation accuracies (of training, where there is no validation) in ten
    thousandths."""
    for key in ("val_accuracy", "train_accuracy"):
        found = series(run.folder, key)
        if found.steps:
            every = -(-len(found.steps) // MOST_POINTS)
            kept = slice((len(found.steps) - 1) % every, None, every)  # the last one among them
            epochs = tuple(round(epoch, 2) for epoch in found.epochs[kept].tolist())
            return epochs, [round(10_000 * value) for value in found.values[kept].tolist()]
    return (), []
