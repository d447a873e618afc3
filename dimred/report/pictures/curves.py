"""Draw training curves, and how supports change during training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dimred.report.pictures.metrics import series, shared
from dimred.report.pictures.picture import Picture, Row
from dimred.report.pictures.points import Point, Setting, seeds
from dimred.report.pictures.sheet import (
    Sheet,
    columns,
    log_ticks,
    set_ticks,
    sparsity_label,
)
from dimred.report.pictures.style import INK, MUTED, shades

DASHED = (0, (2.5, 1.5))
PLACES = 60  # of a curve that are drawn
LEAST = 1e-7  # the smallest loss on a log scale, about the resolution of float32


class Curve(NamedTuple):
    """A key of a point over epochs: the mean over the n runs that have it, and one sample standard
    deviation below and above. On a log scale these are statistics of the logarithm, so that no band
    reaches 0."""

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: int

    def places(self) -> Iterable[list[float]]:
        """Epoch, mean, low and high of each place."""
        table: list[list[float]] = np.stack(self[:4], axis=1).tolist()
        return table


class Kind(NamedTuple):
    """A picture of two curves in each panel, one solid and one dashed."""

    name: str
    title: str
    solid: tuple[str, str]  # a key of metrics.jsonl, and its label
    dashed: tuple[str, str]
    label: str
    log: bool = False


ACCURACY = Kind(
    "curves-accuracy",
    "training curves, accuracy",
    ("val_accuracy", "validation"),
    ("train_accuracy", "training"),
    "accuracy (%)",
)
LOSS = Kind(
    "curves-loss",
    "training curves, loss",
    ("val_loss", "validation"),
    ("train_loss", "training"),
    "loss (nats)",
    log=True,
)
SUPPORT = Kind(
    "support",
    "change of the support",
    ("overlap", "overlap with the first support"),
    ("explored", "explored: ever trained"),
    "share (%)",
)


def curve(point: Point, key: str, log: bool = False) -> Curve | None:
    """The steps that all runs with the key have in common; None if there are none."""
    found = [each for run in point.runs if (each := series(run.folder, key)).steps]
    if not found:
        return None
    steps = shared([each.steps for each in found])
    if not steps:
        return None
    found = [each.at(steps) for each in found]
    values = np.array([each.values for each in found])
    if log:
        values = np.log(np.maximum(values, LEAST))
    mean, std = values.mean(0), np.zeros(len(steps))
    if len(found) > 1:
        std = values.std(0, ddof=1)
    band = mean, mean - std, mean + std
    mean, low, high = map(np.exp, band) if log else np.clip(band, 0, 1)
    return Curve(found[0].epochs, mean, low, high, len(found))


def over_time(setting: Setting, kind: Kind) -> Picture | None:
    """A panel for each method; None if there is nothing to draw."""
    pairs = {
        p: (curve(p, kind.solid[0], kind.log), curve(p, kind.dashed[0], kind.log))
        for p in setting.points
    }
    static: list[str] = []
    if kind is SUPPORT:
        pairs = {point: pair for point, pair in pairs.items() if all(pair)}
        moving = {point.method for point, pair in pairs.items() if moves(*pair)}
        methods = {point.method for point in pairs} - moving
        static = [method for method in setting.methods if method in methods]
        pairs = {point: pair for point, pair in pairs.items() if point.method in moving}
    drawn = {point: pair for point, pair in pairs.items() if any(pair)}
    if not drawn:
        return None
    title = f"{setting.title}: {kind.title}"
    n = [curve.n for curve in chain.from_iterable(drawn.values()) if curve]
    mean, spread = ("Geometric mean", "×÷ one geometric") if kind.log else ("Mean", "± one sample")
    bands = f"; bands: {spread} standard deviation of the solid lines" if max(n) > 1 else ""
    caption = f"{mean} over {seeds(n)}{bands}. Epochs are counted over all rounds."
    if kind is SUPPORT:
        caption += (
            " Overlap: intersection over union with the support at the first step. Explored: the "
            "fraction of the covered weights that was trained at any time."
        )
    if static:
        caption += (
            " Not drawn, as the same weights are trained throughout (masks over them are not "
            f"followed): {', '.join(static)}."
        )
    return Picture(
        kind.name,
        setting.slug,
        title,
        caption,
        lambda sheet: draw(sheet, kind, drawn),
        rows_of(kind, drawn),
    )


def rows_of(kind: Kind, drawn: Mapping[Point, tuple[Curve | None, Curve | None]]) -> list[Row]:
    rows = list[Row]()
    for point, pair in drawn.items():
        for (name, _), curve in zip((kind.solid, kind.dashed), pair, strict=True):
            if curve is None:
                continue
            about: Row = {"method": point.method, "sparsity": point.sparsity, "curve": name}
            for epoch, mean, low, high in curve.places():
                at = {"epoch": epoch, "mean": mean, "low": low, "high": high, "seeds": curve.n}
                rows.append({**about, **at})
    return rows


def moves(overlap: Curve | None, explored: Curve | None) -> bool:
    return (
        overlap is not None
        and explored is not None
        and bool((overlap.mean < 1).any() or np.ptp(explored.mean) > 0)
    )


def draw(
    sheet: Sheet, kind: Kind, pairs: Mapping[Point, tuple[Curve | None, Curve | None]]
) -> Figure:
    sparsities = sorted({point.sparsity for point in pairs}, key=lambda s: -1 if s is None else s)
    colours: dict[float | None, str] = {
        None: MUTED,
        **shades([s for s in sparsities if s is not None]),
    }
    lines: list[tuple[str, dict[str, Any]]] = [
        (kind.solid[1], {"color": INK}),
        (kind.dashed[1], {"color": INK, "ls": DASHED, "lw": 1.1}),
    ]
    lines += [(sparsity_label(s), {"color": colours[s]}) for s in sparsities]
    sheet.legend(lines)
    methods = list(dict.fromkeys(point.method for point in pairs))
    many = min(columns(sheet.width, 1.75, 4), len(methods))
    left, gap, high = 0.6, 0.22, 1.45
    wide = min(3.4, (sheet.width - left - 0.1) / many - gap)
    limits = limits_of(kind, list(filter(None, chain.from_iterable(pairs.values()))))
    for i, method in enumerate(methods):
        row, column = divmod(i, many)
        axes = sheet.panel(
            left + column * (wide + gap),
            sheet.y + 0.36 + row * (high + 0.62),
            wide,
            high,
            title=method,
        )
        for point, pair in pairs.items():
            if point.method == method:
                draw_pair(axes, pair, colours[point.sparsity])
        set_axes(axes, kind, limits, first=column == 0, high=high)
        if i >= len(methods) - many:
            axes.set_xlabel("epochs trained")
    sheet.y += math.ceil(len(methods) / many) * (high + 0.62) + 0.2
    return sheet.finish()


def draw_pair(axes: Axes, pair: tuple[Curve | None, Curve | None], colour: str) -> None:
    styles: tuple[dict[str, Any], dict[str, Any]] = ({"lw": 1.5}, {"lw": 0.9, "ls": DASHED})
    for whole, style, inside in zip(pair, styles, (colour, "none"), strict=True):
        part = whole and thinned(whole)
        if part and len(part.epochs) == 1:  # a line of one point is invisible
            style = style | {"marker": "o", "ms": 4, "mfc": inside}
        if part:
            axes.plot(part.epochs, part.mean, color=colour, **style)
    if solid := pair[0] and thinned(pair[0]):
        axes.fill_between(solid.epochs, solid.low, solid.high, color=colour, alpha=0.18, lw=0)


def thinned(curve: Curve) -> Curve:
    """At most PLACES of the places, the last one among them."""
    count = len(curve.epochs)
    every = math.ceil(count / PLACES)
    kept = slice((count - 1) % every, None, every)
    epochs, mean, low, high, n = curve
    return Curve(epochs[kept], mean[kept], low[kept], high[kept], n)


def limits_of(kind: Kind, curves: Sequence[Curve]) -> tuple[float, float]:
    """The limits of the vertical axes, the same in all panels."""
    low, high = min(float(c.mean.min()) for c in curves), max(float(c.mean.max()) for c in curves)
    if kind.log:
        low = max(low, high * 1e-6, 1e-12)
        return low / 1.3, max(high, low) * 1.3
    return (-0.03, 1.03) if kind is SUPPORT else (max(-0.03, low - 0.06), min(1.02, high + 0.06))


def set_axes(axes: Axes, kind: Kind, limits: tuple[float, float], first: bool, high: float) -> None:
    if kind.log:
        axes.set_yscale("log")
        places = log_ticks(*limits, high, lambda y: "Mm")
    else:
        places = [t for t in MaxNLocator(5).tick_values(*limits) if limits[0] <= t <= limits[1]]
    axes.set_ylim(limits)
    factor, form = (1, "g") if kind.log else (100, ".4g")
    if first:
        set_ticks(axes.yaxis, places, lambda y: f"{factor * y:{form}}")
        axes.set_ylabel(kind.label)
    else:
        set_ticks(axes.yaxis, places, lambda y: "")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(length=0)
