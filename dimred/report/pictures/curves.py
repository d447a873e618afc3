"""What happens while networks train: their curves, and how their supports move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dimred.report.pictures.points import Point, Setting, metrics, number, seeds
from dimred.report.pictures.sheet import Sheet, columns, log_ticks, per_cent, set_ticks
from dimred.report.pictures.style import INK, MUTED, Picture, shades

DASHED = (0, (2.5, 1.5))
LEAST = 1e-7  # of a loss, on a log scale: about what float32 tells from 0


class Curve(NamedTuple):
    """Of a point: epochs trained so far, mean over the n runs that have the key, one sample
    standard deviation below and above it. On a log scale these are of the logarithm, so that no
    band reaches down to 0."""

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: int


class Kind(NamedTuple):
    """A picture of two curves in each panel, one solid and one dashed."""

    name: str
    title: str
    solid: tuple[str, str]  # key of metrics.jsonl, and what it is
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
    "how the trained weights move",
    ("overlap", "overlap with the first support"),
    ("explored", "explored: ever trained"),
    "share (%)",
)


def curve(point: Point, key: str, log: bool = False) -> Curve | None:
    """Only of steps at which all runs that have the key have it; None if there are none."""
    found = [
        {
            (line["phase"], line["step"]): (line["trained"], value)
            for line in metrics(run.folder)
            if (value := number(line, key)) is not None
        }
        for run in point.runs
    ]
    found = [lines for lines in found if lines]
    steps = [step for step in found[0] if all(step in lines for lines in found)] if found else []
    if not steps:
        return None
    values = np.array([[lines[step][1] for step in steps] for lines in found])
    values = np.log(np.maximum(values, LEAST)) if log else values
    mean, std = values.mean(0), values.std(0, ddof=1) if len(found) > 1 else np.zeros(len(steps))
    mean, low, high = (
        np.exp(v) if log else np.clip(v, 0, 1) for v in (mean, mean - std, mean + std)
    )
    return Curve(np.array([found[0][step][0] for step in steps]), mean, low, high, len(found))


def over_time(setting: Setting, kind: Kind) -> Picture | None:
    """A panel for each method; None if there is nothing to draw."""
    pairs = {
        p: (curve(p, kind.solid[0], kind.log), curve(p, kind.dashed[0], kind.log))
        for p in setting.points
    }
    still: list[str] = []
    if kind is SUPPORT:
        pairs = {point: pair for point, pair in pairs.items() if pair[0] and pair[1]}
        still = [
            m
            for m in setting.methods
            if any(p.method == m for p in pairs)
            and not any(moves(*pair) for point, pair in pairs.items() if point.method == m)
        ]
    drawn = {
        point: pair for point, pair in pairs.items() if any(pair) and point.method not in still
    }
    if not drawn:
        return None
    title = f"{setting.title}: {kind.title}"
    n = [part.n for pair in drawn.values() for part in pair if part]
    mean, spread = ("Geometric mean", "×÷ one geometric") if kind.log else ("Mean", "± one sample")
    bands = f"; bands: {spread} standard deviation of the solid lines" if max(n) > 1 else ""
    caption = f"{mean} over {seeds(n)}{bands}. Epochs: all that were trained, those of earlier rounds included."
    if kind is SUPPORT:
        caption += (
            " Overlap: intersection over union with the support at the first step. Explored: the share of all "
            "covered weights that was trained at some time."
        )
    if still:
        caption += f" The same weights are trained throughout (masks over them are not followed): {', '.join(still)}."
    return Picture(
        kind.name,
        setting.slug,
        title,
        caption,
        lambda width: draw(Sheet(width, title, caption), kind, drawn),
    )


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
    sheet.legend(
        [
            (kind.solid[1], {"color": INK}),
            (kind.dashed[1], {"color": INK, "ls": DASHED, "lw": 1.1}),
            *(
                (
                    "no sparsity asked for" if s is None else f"sparsity {per_cent(s)}",
                    {"color": colours[s]},
                )
                for s in sparsities
            ),
        ]
    )
    methods = list(dict.fromkeys(point.method for point in pairs))
    many = min(columns(sheet.width, 1.75, 4), len(methods))
    left, gap, high = 0.6, 0.22, 1.45
    wide = min(3.4, (sheet.width - left - 0.1) / many - gap)
    limits = limits_of(kind, [c for pair in pairs.values() for c in pair if c])
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
    for part, style, inside in zip(
        pair, ({"lw": 1.5}, {"lw": 0.9, "ls": DASHED}), (colour, "none"), strict=True
    ):
        if part:
            single = {"marker": "o", "ms": 4, "mfc": inside} if len(part.epochs) == 1 else {}
            axes.plot(part.epochs, part.mean, color=colour, **style, **single)  # type: ignore[arg-type]
    if pair[0]:
        axes.fill_between(pair[0].epochs, pair[0].low, pair[0].high, color=colour, alpha=0.18, lw=0)


def limits_of(kind: Kind, curves: Sequence[Curve]) -> tuple[float, float]:
    """Of the vertical axes of all panels."""
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
    set_ticks(
        axes.yaxis,
        places,
        (lambda y: f"{y:g}" if kind.log else f"{100 * y:.4g}") if first else lambda y: "",
    )
    if first:
        axes.set_ylabel(kind.label)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(length=0)
