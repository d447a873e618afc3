"""Accuracy against a cost: the marks to draw, the Pareto front, the methods of each panel, the
range."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from dimred.report.measures import MEASURES, number
from dimred.report.pictures.points import Setting, Stat, Value, accuracy, kept, stat
from dimred.report.pictures.sheet import per_cent, with_prefix
from dimred.report.pictures.style import COLOURS


@dataclass(frozen=True)
class Cost:
    """A horizontal axis.

    keys: the numbers of a result that it needs. front: less is better, so that there is a Pareto
    front.
    """

    name: str
    keys: Sequence[str]
    title: str
    quantity: str
    unit: str
    meaning: str
    value: Value
    front: bool = True

    @property
    def label(self) -> str:
        return f"{self.quantity} ({self.unit})"

    def text(self, x: float) -> str:
        return with_prefix(x) if self.front else f"{100 * x:.3g}"


SPARSITY = Cost(
    "sparsity",
    ("total", "dim", "density"),
    "accuracy against sparsity",
    "weights kept, 1 − sparsity",
    "%",
    "Kept: as requested, or more if more weights have trained values and are nonzero at the end.",
    kept,
    front=False,
)
STORAGE = Cost(
    "storage",
    ("storage_bytes",),
    "accuracy against storage",
    "storage",
    "bytes",
    "Storage: the trained network in its smallest exact form. On the Pareto front, nothing else is "
    "as small and as accurate.",
    lambda run: number(run.result, "storage_bytes"),
)
FLOPS = Cost(
    "flops",
    ("training_flops",),
    "accuracy against training cost",
    "training",
    "FLOPs",
    "FLOPs: the whole training with scoring and all rounds. On the Pareto front, nothing else is "
    "as cheap and as accurate.",
    lambda run: number(run.result, "training_flops"),
)
TIME = Cost(
    "time",
    ("seconds",),
    "accuracy against training time",
    "training",
    "seconds",
    "Seconds: the whole training with scoring and evaluation, as measured on the machine of each "
    "run. On the Pareto front, nothing else is as fast and as accurate.",
    lambda run: number(run.result, "seconds"),
)
STEP = Cost(
    "step",
    ("step_seconds",),
    "accuracy against the time of a training step",
    "training step",
    "ms",
    "Step: the median time of a training step, as measured on the machine of each run. On the "
    "Pareto front, nothing else is as fast and as accurate.",
    lambda run: MEASURES["step_seconds"].value(run.result),
)
INFERENCE = Cost(
    "inference",
    ("inference_seconds",),
    "accuracy against inference time",
    "inference with 128 images",
    "ms",
    "Inference: the median time for a batch of 128 images, as measured on the machine of each run. "
    "On the Pareto front, nothing else is as fast and as accurate.",
    lambda run: MEASURES["inference_ms_128"].value(run.result),
)
#: all horizontal axes, by the names of their pictures
COSTS = {cost.name: cost for cost in (SPARSITY, STORAGE, FLOPS, TIME, STEP, INFERENCE)}


class Mark(NamedTuple):
    """A point of the picture."""

    method: str
    sparsity: float | None
    x: float
    y: Stat

    @property
    def label(self) -> str:
        return self.method if self.sparsity is None else f"{self.method} {per_cent(self.sparsity)}"


@cache
def marks_of(setting: Setting, cost: Cost) -> tuple[Mark, ...]:
    """Marks, as means over the runs that have both numbers."""
    marks = list[Mark]()
    for point in setting.points:
        pairs = []
        for run in point.runs:
            x, y = cost.value(run), accuracy(run)
            if x is not None and y is not None and x > 0:  # the axis is logarithmic
                pairs.append((x, y))
        if pairs:
            xs, ys = zip(*pairs, strict=True)
            marks.append(Mark(point.method, point.sparsity, statistics.fmean(xs), stat(ys)))
    return tuple(marks)


def pareto(marks: Sequence[Mark]) -> list[Mark]:
    """The marks that no other dominates, by their cost."""
    front: list[Mark] = []
    # cheap ones first, and of equal cost the best: each has to beat the last one of the front
    for mark in sorted(marks, key=lambda m: (m.x, -m.y.mean)):
        if not front or mark.y.mean > front[-1].y.mean:
            front.append(mark)
    return front


def panels(setting: Setting, marks: Sequence[Mark]) -> list[tuple[str, list[str]]]:
    """The title of each panel and its methods, drawn in colour; dense is in all panels."""
    drawn = {mark.method for mark in marks} - {"dense"}
    families = setting.methods
    return grouped({method: families[method] for method in families if method in drawn})


def grouped(methods: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """One group if there is a colour for each method, else the families, large ones in parts:
    [("at init, 1 of 2", [...])]."""
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
            title = f"{family}, {i + 1} of {parts}" if parts > 1 else family
            groups.append((title, part))
    return groups


class Scale(NamedTuple):
    low: float
    high: float
    log: bool  # a log scale of the distance from 1


def scale_of(marks: Sequence[Mark]) -> Scale:
    """The range of accuracies, on a log scale if the errors differ five-fold and none is 0."""
    low, high = min(m.y.mean - m.y.std for m in marks), max(m.y.mean for m in marks)
    log = high < 1 and (1 - low) / (1 - high) > 5
    if log:
        return Scale(max(1 - (1 - low) * 1.15, -0.3), 1 - (1 - high) / 1.5, True)
    top = max(m.y.mean + m.y.std for m in marks)
    margin = max(0.06 * (top - low), 0.004)
    return Scale(max(low - margin, -0.02), min(top + margin, 1.02), False)
