"""Draw accuracy against a cost: weights, storage, training FLOPs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dimred.report.pictures.marks import Cost, Mark, marks_of, panels, pareto, scale_of
from dimred.report.pictures.picture import Picture, Row
from dimred.report.pictures.points import Setting, seeds
from dimred.report.pictures.sheet import (
    BELOW,
    LEFT,
    SMALL,
    Sheet,
    beside,
    columns,
    line,
    log_ticks,
    set_ticks,
    shortened,
    sized,
    width_of,
)
from dimred.report.pictures.style import FAINT, INK, MUTED, Style

#: ticks of a log scale of errors
ACCURACIES = (0.1, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999)
#: where a number can go, in inches from its point; the first free place is taken
SPOTS = [
    np.array((-distance * math.cos(angle), distance * math.sin(angle)))
    for distance, angle in product((0.17, 0.3, 0.43), (0.8, 1.57, 0.2, 2.2))
]


def tradeoff(setting: Setting, cost: Cost, styles: Mapping[str, Style]) -> Picture | None:
    """The picture; None if no run has both numbers."""
    marks = marks_of(setting, cost)
    if not marks:
        return None
    counts = [mark.y.n for mark in marks]
    caption = f"Test accuracy at the last epoch, mean over {seeds(counts)}."
    if max(counts) > 1:
        caption += " Bands and bars: ± one sample standard deviation."
    caption += f" {cost.meaning} On a log scale: {cost.label}"
    caption += ", and the distance of the accuracy from 100\u00a0%." if scale_of(marks).log else "."
    title = f"{setting.title}: {cost.title}"
    return Picture(
        cost.name,
        setting.slug,
        title,
        caption,
        lambda sheet: draw(sheet, setting, cost, marks, styles),
        [row_of(mark, cost) for mark in marks],
    )


def row_of(mark: Mark, cost: Cost) -> Row:
    name = cost.label if cost.front else "weights kept"  # a fraction, like the accuracy
    return {
        "method": mark.method,
        "sparsity": mark.sparsity,
        name: mark.x,
        "test_accuracy": mark.y.mean,
        "test_accuracy std": mark.y.std,
        "seeds": mark.y.n,
    }


def draw(
    sheet: Sheet, setting: Setting, cost: Cost, marks: Sequence[Mark], styles: Mapping[str, Style]
) -> Figure:
    drawn = {mark.method for mark in marks}
    groups = panels(setting, marks)
    front = pareto(marks) if cost.front else []
    if cost.front:
        shown: Sequence[str] = ()
        if len(groups) == 1:
            shown = groups[0][1]
            samples = {m: {"color": styles[m].colour, "marker": styles[m].marker} for m in drawn}
            sheet.legend([(m, samples[m]) for m in setting.methods if m in drawn])
        draw_front(sheet, cost, marks, front, shown, styles)
    if not cost.front or len(groups) > 1:
        draw_groups(sheet, cost, marks, front, groups, styles)
    return sheet.finish()


def draw_front(
    sheet: Sheet,
    cost: Cost,
    marks: Sequence[Mark],
    front: Sequence[Mark],
    shown: Sequence[str],
    styles: Mapping[str, Style],
) -> None:
    """Draw all points, number those of the front, and list these beside the panel, or below it if
    the page is narrow."""
    names = max(width_of(mark.label) for mark in front)
    aside = sheet.width >= 7
    room = min(names, 2.2) + 2.1 if aside else 0.15
    size = sheet.width - LEFT - room - 0.15, 3.9 if aside else 3.0
    sheet.y += 0.15
    axes = sheet.panel(LEFT, sheet.y, *size)
    set_axes(axes, cost, marks, size[0])
    draw_marks(axes, marks, shown, styles, front)
    number_front(axes, size, front, styles)
    axes.set_xlabel(cost.label)
    axes.set_ylabel("test accuracy (%)")
    x, y = (LEFT + size[0] + 0.25, sheet.y) if aside else (0.15, sheet.y + size[1] + BELOW + 0.12)
    rows = [
        ("Pareto front", "accuracy", cost.unit),
        *((mark.label, f"{100 * mark.y.mean:.2f} %", cost.text(mark.x)) for mark in front),
    ]
    names = min(
        names, 2.2, sheet.width - x - 0.4 - 0.8 - max(width_of(price) for *_, price in rows) - 0.1
    )
    at = x + 0.4, x + 0.4 + names + 0.15, x + 0.4 + names + 0.8
    for i, row in enumerate(rows):
        for place, text in zip(at if i else (x, *at[1:]), row, strict=True):
            if i:
                sheet.text(place, y, shortened(text, names), fontsize=sized(SMALL), color=INK)
            else:  # the heads of the columns
                sheet.text(place, y, text, fontsize=sized(SMALL), color=MUTED)
        if i:
            sheet.text(x, y, f"{i}", fontsize=sized(SMALL), fontweight="bold")
            colour, marker = styles[front[i - 1].method]
            sheet.line([x + 0.27], y + 0.06, color=colour, marker=marker)
        y += line() + 0.05
    sheet.y = max(y + line(), sheet.y + size[1] + BELOW) + 0.1


def draw_groups(
    sheet: Sheet,
    cost: Cost,
    marks: Sequence[Mark],
    front: Sequence[Mark],
    groups: Sequence[tuple[str, list[str]]],
    styles: Mapping[str, Style],
) -> None:
    """Draw a panel for each group of methods, with the others in grey."""
    n = 1 if len(groups) == 1 else columns(sheet.width, 3.6, 2)
    room = min(1.9, 0.42 + max(width_of(mark.method) for mark in marks))
    size = (
        (sheet.width - 0.1) / n - LEFT - room,
        4.2 if len(groups) == 1 and sheet.width > 7 else 2.5,
    )
    for i, (title, methods) in enumerate(groups):
        row, column = divmod(i, n)
        above = 0.42 if title else 0.15
        x, y = (
            LEFT + column * (size[0] + LEFT + room),
            sheet.y + above + row * (size[1] + above + 0.3),
        )
        axes = sheet.panel(x, y, *size, title=title)
        set_axes(axes, cost, marks, size[0])
        draw_marks(axes, marks, methods, styles, front)
        beside(axes, size, ends_of(axes, cost, marks, (*methods, "dense"), styles), room)
        if i >= len(groups) - n:
            axes.set_xlabel(cost.label)
        if column == 0:
            axes.set_ylabel("test accuracy (%)")
    rows = math.ceil(len(groups) / n)
    sheet.y += rows * (size[1] + above + 0.3) + 0.2


def ends_of(
    axes: Axes,
    cost: Cost,
    marks: Sequence[Mark],
    methods: Iterable[str],
    styles: Mapping[str, Style],
) -> list[tuple[float, float, str, Style]]:
    """The right end of each curve, where its name goes: (x, y, method, style)."""
    ends = []
    for method in methods:
        own = sorted((mark for mark in marks if mark.method == method), key=lambda mark: mark.x)
        if own:
            end = own[-1 if cost.front else 0]
            # the line of dense reaches the edge
            x = axes.get_xlim()[1] if method == "dense" else end.x
            ends.append((x, end.y.mean, method, styles[method]))
    return ends


def draw_marks(
    axes: Axes,
    marks: Sequence[Mark],
    shown: Sequence[str],
    styles: Mapping[str, Style],
    front: Sequence[Mark],
) -> None:
    """Draw lines with bands through the points of each method; methods that are not shown are
    grey."""
    curves: dict[str, list[Mark]] = defaultdict(list)
    for mark in marks:
        curves[mark.method].append(mark)
    for method, curve in curves.items():
        curve.sort(key=lambda mark: mark.x)
        points = [(mark.x, mark.y.mean, mark.y.std) for mark in curve]
        x, y, std = np.array(points).T
        if method not in shown and method != "dense":
            axes.plot(x, y, color=FAINT, lw=0.9, marker=styles[method].marker, ms=3, zorder=1.5)
            continue
        colour, marker = styles[method]
        low, high = y - std, np.minimum(y + std, 1 - (1 - y) / 20)
        if len(curve) > 1:
            axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0, zorder=2)
        elif std[0]:
            axes.errorbar(x, y, [y - low, high - y], color=colour, lw=1, capsize=2.5, zorder=2.5)
        if method == "dense":
            axes.axhline(y[0], color=INK, lw=0.9, ls=(0, (4, 3)), zorder=1.8)
        axes.plot(x, y, color=colour, marker=marker, ms=8 if method == "dense" else 5, zorder=3)
    if len(front) > 1:
        axes.step(
            [m.x for m in front],
            [m.y.mean for m in front],
            where="post",
            color=INK,
            lw=1,
            alpha=0.55,
            zorder=2.2,
        )


def number_front(
    axes: Axes, size: tuple[float, float], front: Sequence[Mark], styles: Mapping[str, Style]
) -> None:
    """Circle and number the points of the front. The numbers go above and left of it, where there
    is room, without overlaps."""
    to_inches = axes.transData + axes.transAxes.inverted()
    taken: list[np.ndarray] = []
    for i, mark in enumerate(front):
        axes.plot(
            [mark.x], [mark.y.mean], marker="o", ms=11, mfc="none", mec=INK, mew=0.9, zorder=4
        )
        colour, marker = styles[mark.method]
        axes.plot([mark.x], [mark.y.mean], marker=marker, color=colour, zorder=3.5)
        place = to_inches.transform((mark.x, mark.y.mean)) * size
        spot = next((spot for spot in SPOTS if is_free(place + spot, taken)), SPOTS[0])
        taken += [place, place + spot]
        axes.annotate(
            str(i + 1),
            (mark.x, mark.y.mean),
            (spot[0] * 72, spot[1] * 72),
            textcoords="offset points",
            fontsize=sized(SMALL),
            fontweight="bold",
            ha="center",
            va="center_baseline",
        )


def is_free(place: np.ndarray, taken: Iterable[np.ndarray]) -> bool:
    """Whether a number fits here, in inches."""
    return all(np.abs(place - other).max() > 0.15 for other in taken)


def set_axes(axes: Axes, cost: Cost, marks: Sequence[Mark], width: float) -> None:
    """Set limits and ticks, the same in all panels of a picture."""
    scale = scale_of(marks)
    if scale.log:
        axes.set_yscale(
            "function",
            functions=(lambda y: -np.log10(np.maximum(1 - y, 1e-9)), lambda z: 1 - 10.0**-z),
        )
        places = [place for place in ACCURACIES if scale.low <= place <= scale.high]
        set_ticks(axes.yaxis, places, lambda y: f"{100 * y:g}")
    axes.set_ylim(scale.low, scale.high)
    if not scale.log:
        found = axes.yaxis.get_major_locator().tick_values(*scale[:2])
        places = [place for place in found if scale.low <= place <= scale.high]
        set_ticks(axes.yaxis, places, lambda y: f"{100 * y:.4g}")
    axes.set_xscale("log")
    low, high = min(m.x for m in marks), max(m.x for m in marks)
    margin = max((high / low) ** 0.06, 1.1)
    axes.set_xlim(low / margin, high * margin)
    if not cost.front:
        axes.invert_xaxis()
    set_ticks(axes.xaxis, log_ticks(low / margin, high * margin, width, cost.text), cost.text)
    axes.tick_params(labelcolor=MUTED)
