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
from dimred.report.compose import flat
from dimred.report.numbers import Number
from dimred.report.pictures.names import labels_of, name_of, plain
from dimred.report.pictures.picture import Picture, Row
from dimred.report.pictures.points import (
    Point,
    Setting,
    Stat,
    merged,
    program,
    seeds,
    stat,
    values_of,
)
from dimred.report.pictures.sheet import (
    BELOW,
    Sheet,
    log_ticks,
    per_cent,
    set_ticks,
    shortened,
    sized,
    width_of,
    with_prefix,
)
from dimred.report.pictures.style import COLOURS, MUTED, Style, styles_of
from dimred.report.rows import flat_row
from dimred.report.runs import Run, key

WIDE_RANGE = 20  # from this ratio of the largest to the smallest number on, an axis is logarithmic


class Request(NamedTuple):
    """y against x, in a colour for each value of a key."""

    x: Number
    y: Number
    by: str


class Mark(NamedTuple):
    """A point of the picture.

    value: that of the key of the colours. series: the label of the colour. line: what the points
    of one line have in common.
    """

    method: str
    sparsity: float | None
    value: str
    series: str
    line: str
    x: Stat
    y: Stat


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


def has_both(run: Run, asked: Request) -> bool:
    return asked.x.value(run) is not None and asked.y.value(run) is not None


def complete(points: Sequence[Point], asked: Request) -> tuple[Point, ...]:
    """The points with the runs that have both numbers. Each has one value of the key of the
    colours; if x is the seed, it is a single run."""
    found = []
    for point in points:
        groups = defaultdict[tuple[str, int], list[Run]](list)
        for run in point.runs:
            if has_both(run, asked):
                seed = run.seed if asked.x.name == "seed" else 0
                groups[value_of(run, asked.by), seed].append(run)
        found += [replace(point, runs=tuple(runs)) for runs in groups.values()]
    return tuple(found)


def value_of(run: Run, by: str) -> str:
    value = flat_row(run).get(by)
    return "none" if value is None else plain(value)


def apart_in(setting: Setting, asked: Request) -> str:
    """The key in which the points of a line differ: x, or the sparsity if x is a result."""
    settable = {"seed"}.union(*(flat(run.description) for run in setting.runs))
    return asked.x.name if asked.x.name in settable else "method.sparsity"


def marks_of(setting: Setting, asked: Request, apart: str) -> list[Mark]:
    """Means over the runs of each point."""
    but = [name for name in (asked.x.name, asked.by) if name != "method"]
    programs = {point: program(point.runs[0], but) for point in setting.points}
    choices = {point: chosen(point.runs[0], asked.by) for point in setting.points}
    methods, values = (labels_of(dict.fromkeys(of.values())) for of in (programs, choices))
    has_sparsity = is_named(setting, asked, apart)
    marks = []
    for point, name in programs.items():
        method, parts = methods[name], list[str]()
        if asked.by != "method":
            parts.append(values[choices[point]])
        if asked.by == "method" or len(methods) > 1:
            parts.append(method)
        if has_sparsity and point.sparsity is not None:
            parts.append(per_cent(point.sparsity))
        series, value = ", ".join(parts), value_of(point.runs[0], asked.by)
        x, y = (stat([n.value(run) or 0.0 for run in point.runs]) for n in (asked.x, asked.y))
        line = line_of(point, series, apart)
        marks.append(Mark(method, point.sparsity, value, series, line, x, y))
    return marks


def chosen(run: Run, by: str) -> tuple[str, ...]:
    """The value of a key, and the values inside it, as of a model."""
    inside = [text for text in values_of(run, of_method=False) if text.startswith(f"{by}.")]
    return name_of(f"{by}={value_of(run, by)}"), *inside


def is_named(setting: Setting, asked: Request, apart: str) -> bool:
    """Whether labels have the sparsity: if there are several, and neither x nor colours show it."""
    shown = {"sparsity", "method.sparsity"} & {asked.x.name, asked.by, apart}
    return not shown and len({point.sparsity for point in setting.points} - {None}) > 1


def line_of(point: Point, series: str, apart: str) -> str:
    """All that determines the result, except one key."""
    values = flat(point.runs[0].description)
    values.pop(apart, None)
    return f"{series} {key(values)}"


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
