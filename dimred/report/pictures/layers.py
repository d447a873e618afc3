"""Draw the density of each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure

from dimred.report.pictures.picture import Picture, Row
from dimred.report.pictures.points import Point, Setting, layer_shares, seeds
from dimred.report.pictures.sheet import (
    SMALL,
    Sheet,
    columns,
    line,
    log_ticks,
    per_cent,
    set_ticks,
    shortened,
    sized,
    sparsity_label,
    width_of,
)
from dimred.report.runs import Run

COLOURS, NONE = "viridis", "#8b929b"  # for densities, and for 0
ROW = 0.2  # inches


def layers(setting: Setting) -> Picture | None:
    """A row for each method, a column for each layer, a panel for each sparsity; None if no run is
    sparse in its weights."""
    points = [point for point in setting.points if any(map(is_sparse, point.runs))]
    if not points:
        return None
    title = f"{setting.title}: density of each layer"
    n = seeds(len(point.runs) for point in points)
    caption = (
        "Weights of each layer that are trained, or nonzero if those are fewer, in % of the layer, "
        f"at the end of training; mean over {n}. Layers are in the order of the network."
    )
    return Picture(
        "layers",
        setting.slug,
        title,
        caption,
        lambda sheet: draw(sheet, points),
        rows_of(points),
    )


def rows_of(points: Sequence[Point]) -> list[Row]:
    rows = list[Row]()
    for point in points:
        names = list(dict.fromkeys(chain.from_iterable(map(layer_shares, point.runs))))
        for name, value in zip(names, means(point, names), strict=True):
            about = {"method": point.method, "sparsity": point.sparsity, "layer": name}
            rows.append(about | {"density": float(value), "seeds": len(point.runs)})
    return rows


def is_sparse(run: Run) -> bool:
    """A layer is not fully trained, and a layer is trained at all."""
    shares = layer_shares(run).values()
    return min(shares, default=1) < 1 and max(shares) > 0


def draw(sheet: Sheet, points: Sequence[Point]) -> Figure:
    runs = chain.from_iterable(point.runs for point in points)
    names = list(dict.fromkeys(chain.from_iterable(map(layer_shares, runs))))
    shares = {point: means(point, names) for point in points}
    least = min(float(values[values > 0].min(initial=1)) for values in shares.values())
    norm = LogNorm(least := min(least, 0.1), 1)
    scale(sheet, norm, least)
    room = min(1.75, 0.1 + max(width_of(point.method) for point in points)) + 0.1
    cell = min(0.5, (sheet.width - room - 0.2) / len(names))
    wide = cell * len(names)
    many = columns(sheet.width - 0.1, room + wide + 0.05, 4)
    sparsities = sorted({point.sparsity for point in points}, key=lambda s: -1 if s is None else s)
    letters = max(width_of(name.removesuffix(".weight")) for name in names)
    bottom = sheet.y
    for i, sparsity in enumerate(sparsities):
        rows = [point for point in points if point.sparsity == sparsity]
        if i % many == 0:
            sheet.y = bottom + 0.42
        x = 0.05 + room + (i % many) * (room + wide + 0.05)
        title = sparsity_label(sparsity)
        axes = sheet.panel(x, sheet.y, wide, ROW * len(rows), title=title)
        draw_rows(axes, rows, names, np.array([shares[point] for point in rows]), norm, cell)
        bottom = max(bottom, sheet.y + ROW * len(rows) + letters + 0.15)
    sheet.y = bottom
    return sheet.finish()


def draw_rows(
    axes: Axes,
    rows: Sequence[Point],
    names: Sequence[str],
    values: np.ndarray,
    norm: LogNorm,
    cell: float,
) -> None:
    colours = colormaps[COLOURS].with_extremes(under=NONE)
    drawn = np.ma.masked_invalid(np.where(values == 0, 1e-12, values))  # 0 has no logarithm
    axes.imshow(drawn, norm=norm, cmap=colours, aspect="auto", interpolation="none")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    set_ticks(axes.yaxis, range(len(rows)), lambda i: shortened(rows[int(i)].method, 1.65))
    every = math.ceil(0.15 / cell)  # the room that a name needs
    set_ticks(
        axes.xaxis, range(0, len(names), every), lambda i: names[int(i)].removesuffix(".weight")
    )
    axes.tick_params(axis="x", labelrotation=90, pad=2)
    for (i, j), value in np.ndenumerate(values):
        if cell > 0.4 and not math.isnan(value):
            colour = to_rgb(colours(float(norm(max(value, 1e-12)))))
            # luminance: black letters on a bright colour, white ones on a dark
            bright = float(np.dot(colour, (0.21, 0.72, 0.07))) > 0.42
            axes.text(
                j,
                i,
                in_few(100 * value),
                ha="center",
                va="center_baseline",
                fontsize=sized(SMALL),
                color="#000000" if bright else "#ffffff",
            )


def in_few(value: float) -> str:
    """At most four characters."""
    if value >= 9.95 or value == 0:
        return f"{value:.0f}"
    if value >= 0.1:
        return f"{value:.2g}"
    return "<.01" if value < 0.005 else f"{value:.2f}"


def scale(sheet: Sheet, norm: LogNorm, least: float) -> None:
    """The colour scale."""
    sheet.y += 0.12
    wide = min(2.6, sheet.width - 1.1)
    places = log_ticks(least, 1, wide, per_cent)
    # the label of the first tick must not be cut off
    inside = wide * (1 - math.log(places[0]) / math.log(least))
    left = 0.15 + max(0.0, width_of(per_cent(places[0])) / 2 - inside)
    axes = sheet.panel(left, sheet.y, wide, 0.13)
    axes.imshow(
        np.geomspace(least, 1, 128)[None],
        norm=norm,
        cmap=COLOURS,
        aspect="auto",
        interpolation="none",
        extent=(math.log10(least), 0, 0, 1),
    )
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
    set_ticks(axes.xaxis, [math.log10(place) for place in places], lambda z: per_cent(10**z))
    sheet.text(left + wide + 0.45, sheet.y - 0.01, "0 %", fontsize=sized(SMALL))
    sheet.line([left + wide + 0.32], sheet.y + 0.065, color=NONE, marker="s", ms=9)
    sheet.y += 0.13 + line()


def means(point: Point, names: Sequence[str]) -> np.ndarray:
    """Means over seeds; nan if the network has no such layer."""
    of_runs = [layer_shares(run) for run in point.runs]
    values = []
    for shares in of_runs:
        values.append([shares.get(name, math.nan) for name in names])
    return np.mean(values, axis=0)
