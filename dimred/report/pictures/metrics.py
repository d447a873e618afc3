"""The metrics of a run: metrics.jsonl as columns, and each of its numbers over the steps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, compress
from typing import Any, NamedTuple

import numpy as np

from dimred.report.all_cores import on_all_cores
from dimred.report.compose import Json
from dimred.report.measures import is_number
from dimred.report.remote import Place

Step = tuple[int, int]  # phase and step
MANY = 500  # runs whose metrics are worth several processes


class Metrics(NamedTuple):
    """The readable lines of metrics.jsonl, one for each step.

    epochs: trained until then, over all training phases. numbers: of every key, nan where a line
    has none. lists: of those keys instead whose values are lists of numbers, a row for each line.
    """

    steps: list[Step]
    epochs: np.ndarray
    numbers: dict[str, np.ndarray]
    lists: dict[str, np.ndarray]


_known: dict[Place, Metrics] = {}


def metrics(folder: Place) -> Metrics:
    """The metrics of a run, empty if it has none; read once. As columns, because the lines of ten
    thousand runs took 0.4 GB more."""
    if folder not in _known:
        _known[folder] = read(folder)
    return _known[folder]


def read_ahead(folders: Iterable[Place]) -> None:
    """Read the metrics of many runs on all cores."""
    new = [folder for folder in folders if folder not in _known]
    if len(new) >= MANY:
        _known.update(zip(new, on_all_cores(read, new), strict=True))


def read(folder: Place) -> Metrics:
    path = folder / "metrics.jsonl"
    texts = path.read_text(errors="replace").splitlines() if path.is_file() else []
    lines, epochs, trained, before = dict[Step, Json](), dict[Step, float](), 0.0, (-1, 0.0)
    for line in parsed(texts):
        try:
            phase, step, epoch = int(line["phase"]), int(line["step"]), float(line["epoch"])
        except (ValueError, LookupError, TypeError, OverflowError):  # not a line of metrics
            continue
        goes_on = phase == before[0] or epoch > before[1]
        # a phase that starts earlier has rewound, and evaluates after an epoch at the latest
        trained += epoch - before[1] if goes_on else min(epoch, 1.0)
        before = phase, epoch
        lines[phase, step], epochs[phase, step] = line, trained
    numbers, lists = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for key in dict.fromkeys(chain.from_iterable(lines.values())):
        values = [line.get(key) for line in lines.values()]
        if list in map(type, values) and (rows := as_rows(values)) is not None:
            lists[key] = rows
        else:
            numbers[key] = as_numbers(values)
    return Metrics([*lines], np.array([*epochs.values()]), numbers, lists)


def parsed(texts: Sequence[str]) -> Iterator[Any]:
    """The lines that are JSON; an interrupted write is not."""
    with suppress(ValueError):
        # all at once, which is faster
        lines = json.loads("[" + ",\n".join(texts) + "]")
        if len(lines) == len(texts):
            yield from lines
            return
    for text in texts:
        with suppress(ValueError):
            yield json.loads(text)


def as_numbers(values: Iterable[Any]) -> np.ndarray:
    """The values that are numbers, and nan for all others."""
    values = list(values)
    if {*map(type, values)} != {float}:
        for i, value in enumerate(values):
            if not is_number(value):
                values[i] = np.nan
    found = np.array(values, float)
    found[np.abs(found) >= 1e100] = np.nan
    return found


def as_rows(values: Sequence[Any]) -> np.ndarray | None:
    """Lists of numbers as rows, of nan for a value that is none. None unless all have the same
    length."""
    there = [value is not None for value in values]
    try:
        rows = np.array([*compress(values, there)], float)
    except (ValueError, TypeError, OverflowError):
        return None
    if rows.ndim != 2:
        return None
    found = np.full((len(values), rows.shape[1]), np.nan)
    found[there] = rows
    return found


# -- over the steps --------------------
class Series(NamedTuple):
    """A number of a run at the steps that have it: the epochs trained until then, and its
    values."""

    steps: list[Step]
    epochs: np.ndarray
    values: np.ndarray

    def at(self, steps: list[Step]) -> Series:
        """At some of its steps alone."""
        if steps == self.steps:
            return self
        places = {step: i for i, step in enumerate(self.steps)}
        kept = [places[step] for step in steps]
        return Series(steps, self.epochs[kept], self.values[kept])


def series(folder: Place, key: str) -> Series:
    steps, epochs, numbers, _ = metrics(folder)
    if key not in numbers:
        return Series([], epochs[:0], epochs[:0])
    there = np.isfinite(numbers[key])
    if there.all():
        return Series(steps, epochs, numbers[key])
    return Series([*compress(steps, there)], epochs[there], numbers[key][there])


def shared(of_runs: Sequence[list[Step]]) -> list[Step]:
    """The steps that all runs have in common, in the order of the first."""
    first = of_runs[0]
    if all(steps == first for steps in of_runs):
        return first
    common = set(first).intersection(*of_runs)
    return [step for step in first if step in common]
