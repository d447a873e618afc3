"""The rows of the overview page: runs, their means over seeds, and their configurations."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from dimred.errors import counted, numbered
from dimred.report.measures import number
from dimred.report.pictures.names import plain
from dimred.report.pictures.points import Point, Setting, sparsity
from dimred.report.pictures.sheet import per_cent, with_prefix
from dimred.report.runs import Run

MOST = 20_000  # characters of a configuration


class Cell(NamedTuple):
    text: str
    order: str  # the key for sorting, and the value in a CSV

    @classmethod
    def of(cls, value: float, text: str) -> Cell:
        return cls(text, str(value) if isinstance(value, int) else f"{value:.8g}")


class Row(NamedTuple):
    """A run, or the mean over seeds. about: the values to filter by; group: the number of its
    configuration."""

    method: str
    group: int
    about: Mapping[str, str]
    cells: Sequence[Cell]


class Group(NamedTuple):
    """Runs that differ only in their seed. config: the text of config.yaml of the first one; facts:
    other values, as (name, value)."""

    title: str
    config: str
    facts: Sequence[tuple[str, str]]


class Column(NamedTuple):
    key: str
    show: Callable[[float], str]


def accuracy_text(value: float) -> str:
    return f"{100 * value:.2f}"


def count_text(value: float) -> str:
    return f"{value:,.0f}"


def share_text(value: float) -> str:
    return f"{100 * value:.4g}"


def ratio_text(value: float) -> str:
    return f"{value:.3g}"


#: numbers of result.json, by the titles of their columns
COLUMNS = {
    "Test accuracy %": Column("test_accuracy", accuracy_text),
    "… at best validation epoch %": Column("best_val_test_accuracy", accuracy_text),
    "Weights ever trained": Column("trained_ever", count_text),
    "Dim": Column("dim", count_text),
    "Nonzero %": Column("density", share_text),
    "Storage, bytes": Column("storage_bytes", with_prefix),
    "Training FLOPs": Column("training_flops", with_prefix),
    "… of dense": Column("training_flops_relative", ratio_text),
    "Inference FLOPs": Column("inference_flops", with_prefix),
    "… of dense, inference": Column("inference_flops_relative", ratio_text),
    "Seconds": Column("seconds", lambda value: f"{value:.1f}"),
}
NONE = Cell("–", "")


def rows_of(point: Point, setting: Setting, group: int) -> list[Row]:
    """A row for each seed."""
    rows = []
    for run in point.runs:
        cells = [sparsity_cell(point), Cell.of(run.seed, str(run.seed))]
        cells += [mean_cell(column, [run]) for column in COLUMNS.values()]
        rows.append(Row(point.method, group, about(point, setting, run), cells))
    return rows


def mean_row(point: Point, setting: Setting, group: int) -> Row:
    """Means ± standard deviations over seeds."""
    cells = [sparsity_cell(point), Cell.of(len(point.runs), str(len(point.runs)))]
    cells += [mean_cell(column, point.runs) for column in COLUMNS.values()]
    return Row(point.method, group, about(point, setting, point.runs[0]), cells)


def sparsity_cell(point: Point) -> Cell:
    s = sparsity(point.runs[0])
    return NONE if s is None else Cell.of(s, share_text(s))


def mean_cell(column: Column, runs: Sequence[Run]) -> Cell:
    values = [value for run in runs if (value := number(run.result, column.key)) is not None]
    if not values:
        return NONE
    mean, spread = statistics.fmean(values), ""
    if len(values) > 1 and (std := statistics.stdev(values)):
        spread = f" ± {column.show(std)}"
    return Cell.of(mean, column.show(mean) + spread)


def about(point: Point, setting: Setting, run: Run) -> dict[str, str]:
    s = sparsity(run)
    return {
        "method": point.method,
        "family": point.family,
        "settings": setting.apart,
        "sparsity": "none" if s is None else per_cent(s),
        "data": plain(run.result.get("dataset")),
        "model": plain(run.result.get("model")),
    }


def choices(rows: Sequence[Row], key: str) -> list[str]:
    """The values of a filter: sparsities ascending, others in the order of the table."""
    values = list(dict.fromkeys(row.about[key] for row in rows))
    if key != "sparsity":
        return values
    numbers = sorted(set(values) - {"none"}, key=lambda text: float(text.split()[0]))
    return [*numbers, *(["none"] if "none" in values else [])]


# -- configurations --------------------
def group_of(point: Point, setting: Setting) -> Group:
    return Group(title_of(point, setting), config_of(point.runs[0]), list(facts(point.runs)))


def title_of(point: Point, setting: Setting) -> str:
    s = sparsity(point.runs[0])
    requested = "" if s is None else f", sparsity {per_cent(s)}"
    seeds = numbered("seed", [run.seed for run in point.runs])
    return f"{point.method}{requested}, {seeds}: {setting.title}"


def config_of(run: Run) -> str:
    try:
        text = (run.folder / "config.yaml").read_text(errors="replace")
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if len(text) <= MOST:
        return text
    return f"{text[:MOST]}\n… ({counted(len(text) - MOST, 'more character')} in config.yaml)"


def facts(runs: Sequence[Run]) -> Iterable[tuple[str, str]]:
    """Each once, if it is the same for all seeds."""
    for run in runs:
        yield f"folder, seed {run.seed}", str(run.folder)
    of_runs = [dict(facts_of(run)) for run in runs]
    for name in dict.fromkeys(name for each in of_runs for name in each):
        values = [each.get(name, "") for each in of_runs]
        if len(set(values)) == 1:
            yield name, values[0]
            continue
        for run, value in zip(runs, values, strict=True):
            yield f"{name}, seed {run.seed}", value


def facts_of(run: Run) -> Iterable[tuple[str, str]]:
    command: Any = run.result.get("command")
    if isinstance(command, list):
        yield "command", " ".join(map(str, command))
    for key in ("device", "python", "versions", "commit", "collapsed", "measures", "storage"):
        value = run.result.get(key)
        if isinstance(value, dict):
            value = [f"{name} {one}" for name, one in value.items()]
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        if value:
            yield key, str(value)
