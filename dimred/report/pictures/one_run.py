"""Pictures of single runs: what a mask looks like, and the values of the trained weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dimred.errors import UserError
from dimred.report.pictures.layer_names import labels
from dimred.report.pictures.maps import heat_map
from dimred.report.pictures.names import layer_name
from dimred.report.pictures.picture import Picture, Row
from dimred.report.pictures.points import Point, Setting
from dimred.report.pictures.sheet import (
    MEDIUM,
    SMALL,
    Sheet,
    columns,
    per_cent,
    set_ticks,
    sized,
    width_of,
    with_prefix,
)
from dimred.report.pictures.style import COLOURS, MUTED
from dimred.report.runs import Run
from dimred.storage.masks import Masks, read_masks

MOST_CELLS = 32  # of a map, in each direction
MOST_FILTERS = 64
BINS = 41


class Map(NamedTuple):
    """The fraction of weights that are trained, by place; nan is no place."""

    name: str
    shares: np.ndarray
    mean: float
    meaning: str = ""  # of places, where they are not outputs and inputs

    @property
    def title(self) -> str:
        return f"first layer{self.name[self.name.rindex(':') :]}" if self.meaning else self.name


def each_run(
    setting: Setting, draw: Callable[[Setting, Point, Run], Picture | None]
) -> list[Picture | None]:
    return [draw(setting, point, run) for point in setting.points for run in point.runs]


def about(setting: Setting, point: Point, run: Run) -> str:
    sparsity = "" if point.sparsity is None else f", sparsity {per_cent(point.sparsity)}"
    return f"{setting.title}, {point.method}{sparsity}, seed {run.seed}"


def file_name(run: Run) -> str:
    return re.sub(r"[^\w.-]", "_", run.folder.name)


# -- masks --------------------
def masks(setting: Setting, point: Point, run: Run) -> Picture | None:
    try:
        found = masks_of(run)
    except UserError:
        return None
    inputs = inputs_of(found, shape_of(run))
    first = f"{inputs[0].meaning} Then in each layer" if inputs else "In each layer"
    maps = [*inputs, *map(map_of, found, found.values())]
    return Picture(
        "masks",
        file_name(run),
        f"{about(setting, point, run)}: trained weights",
        f"The fraction of weights that are trained, at the end. {first}, with outputs from top to "
        "bottom and inputs from left to right. Below each panel are the mean and the range of its "
        "colours, from dark (0\u00a0%) to bright.",
        lambda sheet: draw_maps(sheet, maps),
        rows_of(maps),
    )


def masks_of(run: Run) -> Masks:
    """UserError if the run has none."""
    if not isinstance(run.folder, Path):
        raise UserError("masks are read from file systems alone")
    return {layer_name(name): mask for name, mask in read_masks(run.folder).items()}


def masks_fault(run: Run) -> str:
    try:
        masks_of(run)
    except UserError as error:
        return str(error).replace(str(run.folder), "the run")
    return ""


def shape_of(run: Run) -> tuple[int, ...]:
    """The shape of one input, (channels, height, width) of an image; empty if the run does not
    have it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(run.folder / "model.safetensors", framework="numpy") as file:
            return tuple(map(int, json.loads(file.metadata()["about"])["shape"]))
    except (OSError, TypeError, LookupError, ValueError, SafetensorError):
        return ()


def inputs_of(found: Masks, shape: tuple[int, ...]) -> list[Map]:
    """How the first layer reads images of this shape: all their pixels, or with filters. Empty for
    other data."""
    name, mask = next(iter(found.items()))
    short, mean = name.removesuffix(".weight"), float(mask.mean())
    if len(shape) == 3 and mask.ndim == 2 and mask.shape[1] == math.prod(shape):
        pixels = mask.mean(0).reshape(shape).mean(0)
        return [Map(f"{short}: by pixel", pixels, mean, "First, by input pixel.")]
    if len(shape) == 3 and mask.ndim == 4 and mask.shape[1] == shape[0] and mask.shape[2] > 1:
        tiles = tiled(mask[:MOST_FILTERS].mean(1))
        more = f" ({MOST_FILTERS} of {len(mask)})" if len(mask) > MOST_FILTERS else ""
        meaning = f"First, in the filters of the first layer{more}, as means over input channels."
        return [Map(f"{short}: filters", tiles, mean, meaning)]
    return []


def tiled(filters: np.ndarray) -> np.ndarray:
    """Filters (number, height, width) in a square, with gaps between them."""
    count, high, wide = filters.shape
    side = math.ceil(math.sqrt(count))
    tiles = np.full((math.ceil(count / side) * (high + 1) - 1, side * (wide + 1) - 1), np.nan)
    for i, values in enumerate(filters):
        y, x = i // side * (high + 1), i % side * (wide + 1)
        tiles[y : y + high, x : x + wide] = values
    return tiles


def map_of(name: str, mask: np.ndarray) -> Map:
    """Outputs by inputs, as means over blocks if there are many."""
    matrix = mask.reshape(len(mask), -1).astype(float) if mask.ndim else mask.reshape(1, 1)
    for axis in (0, 1):
        size = matrix.shape[axis]
        starts = np.unique(np.linspace(0, size, min(size, MOST_CELLS), endpoint=False).astype(int))
        widths = np.diff([*starts, size])
        sums = np.add.reduceat(matrix, starts, axis=axis)
        matrix = sums / (widths[:, None] if axis == 0 else widths)
    return Map(name.removesuffix(".weight"), matrix, float(mask.mean()))


def rows_of(maps: list[Map]) -> list[Row]:
    rows = list[Row]()
    for each in maps:
        for (y, x), share in np.ndenumerate(each.shares):
            if not math.isnan(share):
                rows.append({"map": each.name, "y": y, "x": x, "share": float(share)})
    return rows


def draw_maps(sheet: Sheet, maps: list[Map]) -> Figure:
    many = columns(sheet.width - 0.15, min(1.6, sheet.width / 3.3), 6)
    side = (sheet.width - 0.15) / many - 0.15
    top = sheet.y + 0.36
    titles = labels([each.title for each in maps], side, MEDIUM, "bold")
    for i, each in enumerate(maps):
        row, column = divmod(i, many)
        x, y = 0.15 + column * (side + 0.15), top + row * (side + 0.66)
        axes = sheet.panel(x, y, side, side, title=titles[i])
        most = float(np.nanmax(each.shares))
        heat_map(axes, each.shares, Normalize(0, most or 1))
        shares = f"{100 * each.mean:.3g} %: 0 to {100 * most:.3g} %"
        sheet.text(x, y + side + 0.05, shares, fontsize=sized(SMALL), color=MUTED)
    sheet.y = top + math.ceil(len(maps) / many) * (side + 0.66) - 0.3
    return sheet.finish()


# -- weights --------------------
class Histogram(NamedTuple):
    counts: np.ndarray
    edges: np.ndarray
    std: float


def weights(setting: Setting, point: Point, run: Run) -> Picture | None:
    try:
        found = {name: histogram(values) for name, values in trained_values(run).items()}
    except UserError:
        return None
    if not found:
        return None
    return Picture(
        "weights",
        file_name(run),
        f"{about(setting, point, run)}: trained weights",
        "Histograms of the weights that are trained, at the end; of a method with transforms, of "
        "the numbers that it trains in their place. σ is their standard deviation. Frozen and "
        "pruned weights are not counted.",
        lambda sheet: draw_histograms(sheet, found),
        histogram_rows(found),
    )


def trained_values(run: Run) -> dict[str, np.ndarray]:
    """The trained values of each layer that has any. UserError if they cannot be read."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = run.folder / "model.safetensors"
    try:
        tensors = load_file(path)  # type: ignore[arg-type]
    except (OSError, TypeError, KeyError, ValueError, SafetensorError) as error:
        raise UserError(f"model.safetensors cannot be read ({error})") from None
    values = {}
    for name, tensor in tensors.items():
        numbers = tensor[np.isfinite(tensor)]
        if name.startswith("psi/") and numbers.size:
            values[layer_name(name.removeprefix("psi/"))] = numbers.astype(float)
    order = {name: i for i, name in enumerate(run.result.get("layers") or ())}
    return dict(sorted(values.items(), key=lambda item: order.get(item[0], 0)))


def weights_fault(run: Run) -> str:
    try:
        return "" if trained_values(run) else "no weight is trained"
    except UserError as error:
        return str(error)


def histogram(values: np.ndarray) -> Histogram:
    """Symmetrical around 0."""
    most = float(np.abs(values).max()) or 1.0
    counts, edges = np.histogram(values, BINS, (-most, most))
    return Histogram(counts, edges, float(values.std()))


def histogram_rows(found: Mapping[str, Histogram]) -> list[Row]:
    rows = list[Row]()
    for name, each in found.items():
        for count, low, high in zip(each.counts, each.edges, each.edges[1:], strict=False):
            at = {"low": float(low), "high": float(high), "weights": int(count)}
            rows.append({"layer": name, **at})
    return rows


def draw_histograms(sheet: Sheet, found: Mapping[str, Histogram]) -> Figure:
    many, high = min(columns(sheet.width, 1.6, 5), len(found)), 1.1
    below = 1 - sized(0.2) / high  # the bars end below the line of σ
    tops = [max(1, int(each.counts.max())) for each in found.values()]
    letters = max(width_of(count_text(place)) for top in tops for place in ticks(0, top))
    left, gap = letters + sized(0.35), letters + sized(0.2)
    wide = min(2.6, (sheet.width - left - 0.1 + gap) / many - gap)
    top = sheet.y + 0.36
    titles = labels([*found], wide, MEDIUM, "bold")
    for i, (each, most) in enumerate(zip(found.values(), tops, strict=True)):
        row, column = divmod(i, many)
        x, y = left + column * (wide + gap), top + row * (high + 0.62)
        axes = sheet.panel(x, y, wide, high, title=titles[i])
        corner: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "top"}
        axes.text(1, 1, f"σ = {each.std:.2g}", fontsize=sized(SMALL), **corner)
        axes.stairs(each.counts, each.edges, fill=True, color=COLOURS[0], alpha=0.85)
        axes.set_ylim(0, most / below)
        set_ticks(axes.yaxis, ticks(0, most), count_text)
        set_ticks(axes.xaxis, ticks(*axes.get_xlim()), lambda value: f"{value:.3g}")
        if column == 0:
            axes.set_ylabel("weights")
    sheet.y = top + math.ceil(len(found) / many) * (high + 0.62) - 0.2
    return sheet.finish()


def ticks(low: float, high: float) -> list[float]:
    places = MaxNLocator(3, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [place for place in places if low <= place <= high]


def count_text(value: float) -> str:
    return with_prefix(value) if value >= 10_000 else f"{value:.4g}"
