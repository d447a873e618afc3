"""Any number of runs against any other: the marks to draw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from dimred.report.compose import flat
from dimred.report.numbers import Number
from dimred.report.pictures.names import labels_of, name_of, plain
from dimred.report.pictures.points import Point, Setting, Stat, program, stat, values_of
from dimred.report.pictures.sheet import per_cent
from dimred.report.rows import flat_row
from dimred.report.runs import Run, key


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
