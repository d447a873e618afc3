"""What is drawn where accuracy is weighed against a cost: points, the best of them, groups of
methods, the range."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dimred.report.pictures.points import Setting, Stat, Value, accuracy, kept, number, stat
from dimred.report.pictures.sheet import per_cent, with_prefix
from dimred.report.pictures.style import COLOURS


@dataclass(frozen=True)
class Cost:
    """A horizontal axis: what, in which unit. front: is less better, so that there is a Pareto
    front?"""

    name: str
    title: str
    what: str
    unit: str
    meaning: str
    value: Value
    front: bool = True

    @property
    def label(self) -> str:
        return f"{self.what} ({self.unit})"

    def text(self, x: float) -> str:
        return with_prefix(x) if self.front else f"{100 * x:.3g}"


SPARSITY = Cost(
    "sparsity",
    "accuracy against sparsity",
    "weights kept, 1 − sparsity",
    "%",
    "Kept: as asked for, or more if more weights have trained values and are nonzero in the end.",
    kept,
    front=False,
)
STORAGE = Cost(
    "storage",
    "accuracy against storage",
    "storage",
    "bytes",
    "Storage: of the trained network, in its smallest exact form. On the Pareto front, nothing else is as small and as "
    "accurate.",
    lambda run: number(run.result, "storage_bytes"),
)
FLOPS = Cost(
    "flops",
    "accuracy against training cost",
    "training",
    "FLOPs",
    "FLOPs: of the whole training, scoring and all rounds included. On the Pareto front, nothing else is as cheap and "
    "as accurate.",
    lambda run: number(run.result, "training_flops"),
)


class Mark(NamedTuple):
    """A point as it is drawn."""

    method: str
    sparsity: float | None
    x: float
    y: Stat

    @property
    def label(self) -> str:
        return self.method if self.sparsity is None else f"{self.method} {per_cent(self.sparsity)}"


def marks_of(setting: Setting, cost: Cost) -> list[Mark]:
    """Over the runs that have both numbers."""
    marks = []
    for point in setting.points:
        pairs = [
            (x, y)
            for run in point.runs
            if (x := cost.value(run)) and (y := accuracy(run)) is not None and x > 0
        ]
        if pairs:
            xs, ys = zip(*pairs, strict=True)
            marks.append(Mark(point.method, point.sparsity, statistics.fmean(xs), stat(ys)))
    return marks


def pareto(marks: Sequence[Mark]) -> list[Mark]:
    """Those that no other beats, by their cost: none is as cheap and as accurate, and better in one
    of both."""
    front: list[Mark] = []
    for mark in sorted(marks, key=lambda m: (m.x, -m.y.mean)):
        if not front or mark.y.mean > front[-1].y.mean:
            front.append(mark)
    return front


def panels(setting: Setting, marks: Sequence[Mark]) -> list[tuple[str, list[str]]]:
    """The methods that are drawn in colour in each panel, and its title; dense is in all of
    them."""
    drawn = {mark.method for mark in marks} - {"dense"}
    return grouped(
        {method: family for method, family in setting.methods.items() if method in drawn}
    )


def grouped(methods: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """All methods if there is a colour for each, or else the families, large ones in parts: [("at
    init, 1", [...])]."""
    if len(methods) <= len(COLOURS):
        return [("", list(methods))]
    families: dict[str, list[str]] = defaultdict(list)
    for method, family in methods.items():
        families[family].append(method)
    groups = []
    for family, members in families.items():
        parts = math.ceil(len(members) / len(COLOURS))
        for i in range(parts):
            part = members[i * len(members) // parts : (i + 1) * len(members) // parts]
            groups.append((f"{family}, {i + 1} of {parts}" if parts > 1 else family, part))
    return groups


class Scale(NamedTuple):
    low: float
    high: float
    log: bool  # of the distance from 1


def scale_of(marks: Sequence[Mark]) -> Scale:
    """The range of accuracies. Errors that differ five-fold, and none of which is 0, need a log
    scale."""
    low, high = min(m.y.mean - m.y.std for m in marks), max(m.y.mean for m in marks)
    log = high < 1 and (1 - low) / (1 - high) > 5
    if log:
        return Scale(max(1 - (1 - low) * 1.15, -0.3), 1 - (1 - high) / 1.5, True)
    top = max(m.y.mean + m.y.std for m in marks)
    margin = max(0.06 * (top - low), 0.004)
    return Scale(max(low - margin, -0.02), min(top + margin, 1.02), False)
