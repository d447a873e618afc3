"""Draw how the trained weights of each layer change during training."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from dimred.errors import listed
from dimred.report.pictures.layer_names import labels
from dimred.report.pictures.maps import heat_map, name_rows, scale
from dimred.report.pictures.metrics import metrics
from dimred.report.pictures.names import layer_name
from dimred.report.pictures.picture import Picture, Row
from dimred.report.pictures.points import Point, Setting, seeds
from dimred.report.pictures.sheet import Sheet, columns, per_cent, set_ticks, width_of
from dimred.report.runs import Run


class Kind(NamedTuple):
    name: str
    title: str
    key: str  # of metrics.jsonl: a list with a number for each layer
    meaning: str


DENSITY = Kind(
    "history-density",
    "trained weights of each layer over time",
    "trained_by_layer",
    "Weights of each layer that are trained at the end of an epoch, in % of the layer.",
)
OVERLAP = Kind(
    "history-overlap",
    "overlap of each layer's trained weights with its first ones",
    "overlap_by_layer",
    "Weights of each layer that are trained at the end of an epoch and those trained in the first "
    "step: intersection over union.",
)

#: panels of a picture; where there are more, each method has fewer sparsities
MOST = 24


class History(NamedTuple):
    """Shares by layer and epoch, as a mean over n runs."""

    layers: Sequence[str]
    epochs: Sequence[float]
    shares: np.ndarray
    n: int


def history(setting: Setting, kind: Kind) -> Picture | None:
    """A panel for each method and sparsity whose shares change; None if there is none."""
    found = {point: of_point(point, kind) for point in setting.points}
    moving = {point: h for point, h in found.items() if h and moves(h)}
    if not moving:
        return None
    title = f"{setting.title}: {kind.title}"
    caption = f"{kind.meaning} Mean over {seeds([h.n for h in moving.values()])}."
    static = [label(point) for point, h in found.items() if h and point not in moving]
    if static:
        caption += f" Not drawn, as nothing changes: {listed(static, 8)}."
    drawn = thinned(moving)
    if len(drawn) < len(moving):
        caption += (
            f" {len(drawn)} of {len(moving)} panels are drawn: each method has sparsities spread "
            "over all of its own. The .csv that `dimred plot history` writes has every panel."
        )
    return Picture(
        kind.name,
        setting.slug,
        title,
        caption,
        lambda sheet: draw(sheet, drawn),
        rows_of(moving),
    )


def thinned(found: Mapping[Point, History]) -> Mapping[Point, History]:
    """At most MOST of the points, or one of each method: of each, its sparsest and its densest, and
    some between them."""
    if len(found) <= MOST:
        return found
    methods = defaultdict[str, list[Point]](list)
    for point in found:
        methods[point.method].append(point)
    each = max(1, MOST // len(methods))
    kept = list[Point]()
    for points in methods.values():
        places = np.linspace(len(points) - 1, 0, min(each, len(points))).round().astype(int)
        kept += [points[i] for i in places[::-1]]
    return {point: found[point] for point in kept}


def moves(history: History) -> bool:
    return bool(np.ptp(history.shares, axis=1).max() > 0)


def of_point(point: Point, kind: Kind) -> History | None:
    """Of the runs that have as many epochs and layers as the first of them."""
    tables = [table for run in point.runs if (table := of_run(run, kind))]
    alike = [t for t in tables if t.shares.shape == tables[0].shares.shape]
    if not alike:
        return None
    return alike[0]._replace(shares=np.mean([t.shares for t in alike], axis=0), n=len(alike))


@cache
def of_run(run: Run, kind: Kind) -> History | None:
    """None if the run lacks the numbers, as older versions do, or has other layers."""
    found = metrics(run.folder)
    try:
        totals = {layer_name(name): layer["total"] for name, layer in run.result["layers"].items()}
        shares = found.lists[kind.key]
        there = ~np.isnan(shares).all(1)
        shares = shares[there].T
        if kind is DENSITY:
            shares = shares / np.array([*totals.values()], float)[:, None]
    except (AttributeError, TypeError, LookupError, ValueError):
        return None
    if not shares.size or len(shares) != len(totals) or not np.isfinite(shares).all():
        return None
    return History([*totals], found.epochs[there].tolist(), shares, 1)


def history_fault(run: Run) -> str:
    density, overlap = of_run(run, DENSITY), of_run(run, OVERLAP)
    if not density:
        return "metrics.jsonl has no trained_by_layer; an older version of dimred wrote it"
    if moves(density) or (overlap and moves(overlap)):
        return ""
    if len(density.epochs) == 1:
        return "evaluated once, so there is no change to draw"
    return "the same weights are trained throughout"


def label(point: Point) -> str:
    if point.sparsity is None:
        return point.method
    return f"{point.method} {per_cent(point.sparsity)}"


def rows_of(found: Mapping[Point, History]) -> list[Row]:
    rows = list[Row]()
    for point, history in found.items():
        about = {"method": point.method, "sparsity": point.sparsity, "seeds": history.n}
        for (i, j), share in np.ndenumerate(history.shares):
            at = {"layer": history.layers[i], "epoch": history.epochs[j], "share": float(share)}
            rows.append(about | at)
    return rows


# -- drawing --------------------
def draw(sheet: Sheet, found: Mapping[Point, History]) -> Figure:
    most = max(float(history.shares.max()) for history in found.values())
    norm = scale(sheet, most)
    names = {point: [n.removesuffix(".weight") for n in h.layers] for point, h in found.items()}
    widest = max(width_of(name) for each in names.values() for name in each)
    room = min(1.7, widest) + 0.2
    many = min(columns(sheet.width - room, 1.5, 4), len(found))
    wide = min(2.6, (sheet.width - room - 0.1) / many - 0.15)
    bottom = sheet.y
    for i, (point, history) in enumerate(found.items()):
        column = i % many
        if column == 0:
            sheet.y = bottom + 0.42
        high = min(3.2, max(0.5, 0.17 * len(history.layers)))
        x = room + column * (wide + 0.15)
        axes = sheet.panel(x, sheet.y, wide, high, title=label(point))
        heat_map(axes, history.shares, norm)
        if column == 0:
            name_rows(axes, labels(names[point], 1.6), high)
        name_epochs(axes.xaxis, history.epochs)
        axes.set_xlabel("epochs trained")
        bottom = max(bottom, sheet.y + high + 0.45)
    sheet.y = bottom
    return sheet.finish()


def name_epochs(axis: Axis, epochs: Sequence[float]) -> None:
    every = math.ceil(len(epochs) / 5)
    places = range(every - 1, len(epochs), every)
    set_ticks(axis, places, lambda i: f"{epochs[int(i)]:.4g}")
