"""Draw any number of runs against any other."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dimred.errors import counted, listed
from dimred.report.pictures.picture import Picture, Row
from dimred.report.pictures.points import Setting, Stat, merged, seeds
from dimred.report.pictures.sheet import (
    BELOW,
    Sheet,
    log_ticks,
    set_ticks,
    shortened,
    sized,
    width_of,
    with_prefix,
)
from dimred.report.pictures.style import COLOURS, MUTED, Style, styles_of
from dimred.report.pictures.versus_marks import (
    Mark,
    Request,
    apart_in,
    complete,
    has_both,
    marks_of,
)

WIDE_RANGE = 20  # from this ratio of the largest to the smallest number on, an axis is logarithmic


class Scale(NamedTuple):
    low: float
    high: float
    log: bool
    whole: bool = False  # its ticks are whole numbers

    def ticks(self, room: float) -> list[float]:
        if self.log:
            return log_ticks(self.low, self.high, room, text)
        count = max(2, min(7, int(room / sized(0.55))))
        locator = MaxNLocator(count, steps=[1, 2, 5, 10], integer=self.whole)
        places = locator.tick_values(self.low, self.high)
        return [place for place in places if self.low <= place <= self.high]


def versus(
    settings: Sequence[Setting], asked: Request, colours: Sequence[str] = COLOURS
) -> tuple[list[Picture], list[str]]:
    """The pictures, one for each setting, and lines about runs that are not drawn. Settings that
    differ only in x or in the key of the colours share a picture."""
    drawn, missing, count = list[Setting](), list[str](), 0
    for setting in settings:
        count += len(setting.runs)
        missing += [run.folder.name for run in setting.runs if not has_both(run, asked)]
        if points := complete(setting.points, asked):
            drawn.append(replace(setting, points=points))
    pictures = []
    for setting in merged(drawn, (asked.x.name, asked.by)):
        apart = apart_in(setting, asked)
        marks = marks_of(setting, asked, apart)
        series = list(dict.fromkeys(mark.series for mark in marks))
        styles = styles_of(series, [series], colours)
        pictures.append(picture_of(setting, asked, marks, apart, styles))
    notes = []
    if missing:
        numbers = f"{asked.x.name} and {asked.y.name}"
        notes = [
            f"{len(missing)} of {counted(count, 'run')} not drawn (without one of the numbers "
            f"{numbers}): {listed(missing)}"
        ]
    return pictures, notes


def picture_of(
    setting: Setting,
    asked: Request,
    marks: Sequence[Mark],
    apart: str,
    styles: Mapping[str, Style],
) -> Picture:
    kind = f"{asked.y.name}-against-{asked.x.name}-by-{asked.by}"
    title = f"{setting.title}: {asked.y.label} against {asked.x.label}"
    counts = [mark.y.n for mark in marks]
    caption = f"Mean over {seeds(counts)}." if max(counts) > 1 else "Each point is one run."
    if max(counts) > 1:
        caption += " Bars: ± one sample standard deviation."
    if len({mark.line for mark in marks}) < len(marks):
        caption += f" Lines connect runs that differ only in {apart.removeprefix('method.')}."
    x, y = scale_of([mark.x for mark in marks]), scale_of([mark.y for mark in marks])
    logs = [number.label for number, scale in ((asked.x, x), (asked.y, y)) if scale.log]
    if logs:
        caption += f" On a log scale: {' and '.join(logs)}."
    return Picture(
        re.sub(r"[^\w.-]", "_", kind),
        setting.slug,
        title,
        caption,
        lambda sheet: draw(sheet, asked, marks, (x, y), styles),
        [row_of(mark, asked) for mark in marks],
    )


def row_of(mark: Mark, asked: Request) -> Row:
    return {
        "method": mark.method,
        "sparsity": mark.sparsity,
        **({} if asked.by == "method" else {asked.by: mark.value}),
        asked.x.label: mark.x.mean,
        f"{asked.x.label} std": mark.x.std,
        asked.y.label: mark.y.mean,
        f"{asked.y.label} std": mark.y.std,
        "seeds": mark.y.n,
    }


def scale_of(stats: Sequence[Stat]) -> Scale:
    low, high = min(s.mean - s.std for s in stats), max(s.mean + s.std for s in stats)
    means = [s.mean for s in stats]
    if min(means) > 0 and max(means) / min(means) >= WIDE_RANGE:
        margin = (max(means) / min(means)) ** 0.05
        return Scale(min(means) / margin, max(means) * margin, True)
    margin = max(0.06 * (high - low), 0.01 * abs(high), 1e-9)
    whole = all(s.mean.is_integer() and not s.std for s in stats)
    return Scale(low - margin, high + margin, False, whole)


def text(value: float) -> str:
    return with_prefix(value) if abs(value) >= 10_000 else f"{value:.4g}"


# -- drawing --------------------
def draw(
    sheet: Sheet,
    asked: Request,
    marks: Sequence[Mark],
    scales: tuple[Scale, Scale],
    styles: Mapping[str, Style],
) -> Figure:
    series = dict.fromkeys(mark.series for mark in marks)
    samples = []
    for name in series:
        colour, marker = styles[name]
        samples.append((shortened(name, sheet.width - 0.7), {"color": colour, "marker": marker}))
    sheet.legend(samples)
    high = 3.9 if sheet.width > 7 else 0.68 * sheet.width
    places = scales[1].ticks(high)
    left = sized(0.4) + max(width_of(text(place)) for place in places)
    size = sheet.width - left - 0.2, high
    sheet.y += 0.1
    axes = sheet.panel(left, sheet.y, *size)
    set_axis(axes.set_xscale, axes.set_xlim, scales[0])
    set_axis(axes.set_yscale, axes.set_ylim, scales[1])
    set_ticks(axes.xaxis, scales[0].ticks(size[0]), text)
    set_ticks(axes.yaxis, places, text)
    axes.tick_params(labelcolor=MUTED)
    axes.set_xlabel(asked.x.label)
    axes.set_ylabel(asked.y.label)
    draw_lines(axes, marks, styles)
    sheet.y += high + sized(BELOW)
    return sheet.finish()


def set_axis(
    set_scale: Callable[[str], object], set_limits: Callable[[float, float], object], scale: Scale
) -> None:
    set_scale("log" if scale.log else "linear")
    set_limits(scale.low, scale.high)


def draw_lines(axes: Axes, marks: Sequence[Mark], styles: Mapping[str, Style]) -> None:
    lines: dict[str, list[Mark]] = defaultdict(list)
    for mark in marks:
        lines[mark.line].append(mark)
    for line in lines.values():
        line.sort(key=lambda mark: mark.x.mean)
        colour, marker = styles[line[0].series]
        xs, ys = [mark.x for mark in line], [mark.y for mark in line]
        x, y = [each.mean for each in xs], [each.mean for each in ys]
        spread = [each.std for each in xs], [each.std for each in ys]
        axes.errorbar(x, y, spread[1], spread[0], fmt="none", ecolor=colour, lw=1, zorder=2.5)
        size = 1.6 if marker == "*" else 1
        base = axes.plot(x, y, color=colour, marker=marker, zorder=3)[0]
        base.set_markersize(size * base.get_markersize())
