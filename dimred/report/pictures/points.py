"""What pictures are drawn of: finished runs, sorted into settings (never mixed in one picture),
methods and points (a method at a sparsity, over its seeds)."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from dimred.report.compose import Json, flat
from dimred.report.runs import Run, newest
from dimred.runs.config.files import describe_method, names

OF_METHOD = (
    "method",
    "basis",
)  # the groups that tell methods apart; the others tell settings apart
Value = Callable[[Run], float | None]


class Stat(NamedTuple):
    """Mean and sample standard deviation (0 of a single one) over n seeds."""

    mean: float
    std: float
    n: int


def stat(values: Sequence[float]) -> Stat:
    return Stat(
        statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values)
    )


@dataclass(frozen=True, eq=False)
class Point:
    """A method at a sparsity; a run per seed."""

    method: str  # as it is shown: its name, and what tells it from others of that name
    family: str
    sparsity: float | None  # as asked for; None where the method has none
    runs: tuple[Run, ...]


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs that may be compared: of one data set, model and recipe."""

    title: str  # "digits, lenet300", and what tells it from other settings of these
    slug: str  # of file names
    points: tuple[Point, ...]  # methods by family, dense last; by sparsity

    @property
    def runs(self) -> list[Run]:
        return [run for point in self.points for run in point.runs]

    @property
    def methods(self) -> dict[str, str]:
        """Their families, in the order in which everything is drawn."""
        return {point.method: point.family for point in self.points}


def seeds(numbers: Iterable[int]) -> str:
    """n = 3 seeds"""
    counts = sorted(set(numbers))
    many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"n = {many} seed{'s' * (counts[-1] > 1)}"


# -- sorting --------------------
def settings_of(runs: Iterable[Run]) -> tuple[list[Setting], list[str]]:
    """The settings of finished runs, and a line for each run that is another's double."""
    found: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        found[
            (choice(run, "dataset"), choice(run, "model"), *values_of(run, OF_METHOD, inside=False))
        ].append(run)
    settings, notes, slugs = [], [], Counter[str]()
    for key in sorted(found):
        points, doubles = points_of(found[key])
        notes += doubles
        name = "-".join(
            "".join(c if c.isascii() and c.isalnum() else "_" for c in part) for part in key[:2]
        )
        slugs[name] += 1
        slug = name if slugs[name] == 1 else f"{name}-{slugs[name]}"
        apart = differing(key[2:], [k[2:] for k in found if k[:2] == key[:2]])
        settings.append(Setting(plain(f"{key[0]}, {key[1]}{apart}", 120), slug, points))
    return settings, notes


def points_of(runs: Sequence[Run]) -> tuple[tuple[Point, ...], list[str]]:
    """The points of one setting, and a line for each double."""
    programs: dict[tuple[str, ...], dict[float | None, dict[int, list[Run]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for run in runs:
        name = choice(run, "method") + (
            f" + {basis}" if (basis := choice(run, "basis")) not in ("none", "") else ""
        )
        programs[(name, *values_of(run, OF_METHOD, inside=True))][sparsity(run)][run.seed].append(
            run
        )
    points, notes = list[Point](), list[str]()
    for key, by_sparsity in programs.items():
        label = plain(key[0] + differing(key[1:], [k[1:] for k in programs if k[0] == key[0]]), 60)
        while label in {
            point.method for point in points
        }:  # two that differ in what is too long to be shown
            label += "'"
        for s, by_seed in by_sparsity.items():
            chosen = tuple(newest(by_seed[seed]) for seed in sorted(by_seed))
            notes += [
                f"{run.folder}: the same run as {one.folder}"
                for one in chosen
                for run in by_seed[one.seed]
                if run is not one
            ]
            points.append(Point(label, family_of(str(chosen[0].result.get("method"))), s, chosen))
    points.sort(
        key=lambda p: (
            p.method == "dense",
            p.family,
            p.method,
            -1 if p.sparsity is None else p.sparsity,
        )
    )
    return tuple(points), notes


def values_of(run: Run, groups: Sequence[str], inside: bool) -> list[str]:
    """The values of a run's description, "recipe.lr=0.1", that lie inside these groups, or outside
    of them."""
    values = sorted(flat(run.description).items())
    return [
        f"{key.removesuffix('._target_')}={json.dumps(value)}"
        for key, value in values
        if (key.split(".")[0] in groups) == inside and key not in ("method.sparsity", "seed")
    ]


def differing(own: Sequence[str], all_of_them: Sequence[Sequence[str]]) -> str:
    """What tells a description from the others: " (adam, lr=0.1)"; empty if there are no others."""
    if len(all_of_them) == 1:
        return ""
    common = set.intersection(*map(set, all_of_them))
    told = [text.partition("=") for text in own if text not in common]
    pairs = [
        (key.removeprefix("method."), value.replace('"', "").removeprefix("[").removesuffix("]"))
        for key, _, value in told
    ]
    parts = [
        name_of(key, value.rpartition(".")[2] if value.startswith("dimred.") else value)
        for key, value in pairs
    ]
    return f" ({', '.join(parts) or 'older version'})"


def name_of(key: str, value: str) -> str:
    """A word tells enough: "(snip, synflow)" of COPS; a number does not: "lr=0.1"."""
    word = value[:1].isalpha() and value not in ("none", "null", "true", "false")
    return value if word else f"{key}={value}"


@cache
def family_of(method: str) -> str:
    if method == "dense":  # which belongs to none in a picture
        return method
    return describe_method(method)["family"] if method in names("method") else "own methods"


# -- what a run says --------------------
def choice(run: Run, group: str) -> str:
    return plain(run.result.get(group) or "")


def number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    finite = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    )
    return float(value) if finite else None  # type: ignore[arg-type]


def plain(text: object, most: int = 40) -> str:
    """A name from a file as it can be shown: printable, not too long."""
    shown = "".join(c if c.isprintable() else "?" for c in str(text))
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def sparsity(run: Run) -> float | None:
    return number(run.result, "sparsity")


def accuracy(run: Run) -> float | None:
    return number(run.result, "test_accuracy")


def kept(run: Run) -> float | None:
    """The share of the covered weights that a method keeps: what it was asked for, or more if more
    hold trained values and are nonzero in the end, frozen or not. (Fewer may be nonzero by chance:
    what was just grown starts at zero.)"""
    total, dim, density = (number(run.result, key) for key in ("total", "dim", "density"))
    if not total or dim is None or density is None:
        return None
    return max(
        1 - (1.0 if (asked := sparsity(run)) is None else asked), min(dim / total, density, 1.0)
    )


def layer_shares(run: Run) -> dict[str, float]:
    """The share of each layer's weights that hold a trained value, or are nonzero if that is less;
    the nonzero share where no weight trains (supermasks). Empty if result.json lacks it."""
    try:
        layers = run.result["layers"].items()
        measured = ["nonzero", "total"] + ["trained"] * any(v["trained"] for _, v in layers)
        return {plain(name): min(v[key] for key in measured) / v["total"] for name, v in layers}
    except (AttributeError, TypeError, LookupError, ZeroDivisionError):
        return {}


@cache
def metrics(folder: Path) -> tuple[Json, ...]:
    """The lines of a run's metrics.jsonl that can be read, with "trained": epochs trained so far,
    over all training phases."""
    path, lines, trained, before = folder / "metrics.jsonl", list[Json](), 0.0, (-1, 0.0)
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
            phase, step, epoch = int(line["phase"]), int(line["step"]), float(line["epoch"])
        except (
            ValueError,
            LookupError,
            TypeError,
            OverflowError,
        ):  # half a line, of a run that was broken off
            continue
        goes_on = phase == before[0] or epoch > before[1]
        # a phase that starts earlier has rewound, and evaluates after an epoch at the latest
        trained += epoch - before[1] if goes_on else min(epoch, 1.0)
        before = phase, epoch
        lines.append(line | {"phase": phase, "step": step, "trained": trained})
    return tuple(lines)
