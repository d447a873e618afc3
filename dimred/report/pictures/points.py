"""Sort finished runs into settings (one picture each), methods (curves) and points (a method at a
sparsity, over seeds)."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import NamedTuple

from dimred.errors import plural
from dimred.report.measures import number
from dimred.report.pictures.names import Key, labels_of, layer_name, plain, titles, values_in
from dimred.report.runs import Run, newest
from dimred.runs.config.files import describe_method, names

Value = Callable[[Run], float | None]


class Stat(NamedTuple):
    """Mean and sample standard deviation over n seeds (0 for a single seed)."""

    mean: float
    std: float
    n: int


def stat(values: Sequence[float]) -> Stat:
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return Stat(statistics.fmean(values), std, len(values))


@dataclass(frozen=True, eq=False)
class Point:
    """A method at a sparsity, with one run per seed."""

    method: str  # its name, and what tells it from others of that name
    family: str
    sparsity: float | None  # as requested; None if the method has none
    runs: tuple[Run, ...]


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs that may be compared: with the same data set, model and recipe."""

    title: str  # "digits, lenet300", and what tells it from others of that name
    apart: str  # that alone
    slug: str  # for file names
    points: tuple[Point, ...]  # methods by family, dense last; by sparsity

    @property
    def runs(self) -> list[Run]:
        return list(chain.from_iterable(point.runs for point in self.points))

    @property
    def methods(self) -> dict[str, str]:
        """The family of each method, in the order of drawing."""
        return {point.method: point.family for point in self.points}


def seeds(numbers: Iterable[int]) -> str:
    """n = 3 seeds"""
    counts = sorted(set(numbers))
    many = f"{counts[0]}"
    if len(counts) > 1:
        many += f" to {counts[-1]}"
    return f"n = {many} {plural('seed', counts[-1])}"


# -- sorting --------------------
def settings_of(runs: Iterable[Run]) -> tuple[list[Setting], list[str]]:
    """The settings of finished runs, and a line for each run that is the double of another."""
    found: dict[Key, list[Run]] = defaultdict(list)
    for run in runs:
        names = choice(run, "dataset"), choice(run, "model")
        key = *names, *values_of(run, of_method=False)
        found[key].append(run)
    settings, notes = [], []
    for key, named in titles(found).items():
        points, doubles = points_of(found[key])
        notes += doubles
        settings.append(Setting(*named, points))
    return settings, notes


def merged(settings: Iterable[Setting], but: Sequence[str]) -> list[Setting]:
    """The settings, where those that differ only in these keys, or in what is inside them, are
    one."""
    found: dict[Key, list[Point]] = defaultdict(list)
    for setting in settings:
        run = setting.runs[0]
        names = [("dataset", choice(run, "dataset")), ("model", choice(run, "model"))]
        kept_names = [("" if group in but else name) for group, name in names]
        values = values_of(run, of_method=False)
        kept_values = [text for text in values if not is_inside(text.partition("=")[0], but)]
        key = (*kept_names, *kept_values)
        found[key] += setting.points
    return [Setting(*named, tuple(found[key])) for key, named in titles(found).items()]


def is_inside(key: str, names: Iterable[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def points_of(runs: Sequence[Run]) -> tuple[tuple[Point, ...], list[str]]:
    """The points of one setting, and a line for each double."""
    programs: dict[Key, dict[float | None, dict[int, list[Run]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for run in runs:
        programs[program(run)][sparsity(run)][run.seed].append(run)
    points, notes = list[Point](), list[str]()
    labels = labels_of(programs)
    for key, by_sparsity in programs.items():
        label = labels[key]
        for s, by_seed in by_sparsity.items():
            chosen = tuple(newest(by_seed[seed]) for seed in sorted(by_seed))
            for one in chosen:
                doubles = [run for run in by_seed[one.seed] if run is not one]
                notes += [f"{run.folder}: the same run as {one.folder}" for run in doubles]
            points.append(Point(label, family_of(str(chosen[0].result.get("method"))), s, chosen))
    points.sort(key=order)
    return tuple(points), notes


def program(run: Run, but: Sequence[str] = ()) -> Key:
    """The name of a run's method, and its values, except those of some keys."""
    name, basis = choice(run, "method"), choice(run, "basis")
    if basis not in ("none", ""):
        name += f" + {basis}"
    values = values_of(run, of_method=True)
    return name, *(text for text in values if text.partition("=")[0] not in but)


def order(point: Point) -> tuple[bool, str, str, float]:
    """Dense last; methods by family."""
    sparsity = -1.0 if point.sparsity is None else point.sparsity
    return point.method == "dense", point.family, point.method, sparsity


def values_of(run: Run, of_method: bool) -> tuple[str, ...]:
    """The values of a run that tell methods apart, or settings."""
    return _values(run.text, of_method)


@cache
def _values(description: str, of_method: bool) -> tuple[str, ...]:
    return tuple(values_in(json.loads(description), of_method))


@cache
def family_of(method: str) -> str:
    if method == "dense":  # in a picture, it has no family
        return method
    return describe_method(method)["family"] if method in names("method") else "Own methods"


# -- values of a run --------------------
def choice(run: Run, group: str) -> str:
    return plain(run.result.get(group) or "")


def sparsity(run: Run) -> float | None:
    return number(run.result, "sparsity")


def accuracy(run: Run) -> float | None:
    return number(run.result, "test_accuracy")


def kept(run: Run) -> float | None:
    """The fraction of the covered weights that a method keeps: 1 - sparsity as requested, or more
    if more weights hold trained values and are nonzero at the end. Fewer may be nonzero by chance,
    as weights grow at zero."""
    total, dim, density = (number(run.result, key) for key in ("total", "dim", "density"))
    if not total or dim is None or density is None:
        return None
    requested = sparsity(run)
    measured = min(dim / total, density, 1.0)
    return measured if requested is None else max(1 - requested, measured)


@cache
def layer_shares(run: Run) -> dict[str, float]:
    """The fraction of each layer's weights that hold a trained value, or the nonzero fraction if it
    is smaller or no weight is trained (supermasks). Empty if result.json lacks it."""
    try:
        layers = run.result["layers"].items()
        keys = ["nonzero", "total"]
        if any(layer["trained"] for _, layer in layers):
            keys.append("trained")
        shares = {}
        for name, layer in layers:
            shares[layer_name(name)] = min(map(layer.get, keys)) / layer["total"]
        return shares
    except (AttributeError, TypeError, LookupError, ZeroDivisionError):
        return {}
