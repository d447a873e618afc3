"""The catalogue of pictures, with the numbers that each needs of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from dimred.errors import counted, listed
from dimred.report.pictures.curves import ACCURACY, LOSS, SUPPORT, over_time
from dimred.report.pictures.history import DENSITY, OVERLAP, history, history_fault
from dimred.report.pictures.layers import layers
from dimred.report.pictures.marks import COSTS, Cost, marks_of, panels, pareto
from dimred.report.pictures.metrics import as_numbers, metrics, read_ahead
from dimred.report.pictures.one_run import each_run, masks, masks_fault, weights, weights_fault
from dimred.report.pictures.picture import Picture
from dimred.report.pictures.points import Setting, accuracy, layer_shares
from dimred.report.pictures.style import COLOURS, Style, styles_of
from dimred.report.pictures.tradeoff import tradeoff
from dimred.report.runs import Run


class Drawing(NamedTuple):
    draw: Callable[[Setting, Mapping[str, Style]], Iterable[Picture | None]]
    fault: Callable[[Run], str]  # why a run cannot be drawn, or empty
    reads_metrics: bool = False


def lines_have(*keys: str) -> Callable[[Run], str]:
    def fault_of(run: Run) -> str:
        found = metrics(run.folder)
        if not found.steps:
            return "no line of metrics.jsonl can be read"
        return fault(found.numbers, keys, "metrics.jsonl")

    return fault_of


def result_has(*keys: str) -> Callable[[Run], str]:
    def fault_of(run: Run) -> str:
        there = [key for key in keys if key in run.result]
        return fault({key: as_numbers([run.result[key]]) for key in there}, keys, "result.json")

    return fault_of


def fault(numbers: Mapping[str, np.ndarray], keys: Sequence[str], file: str) -> str:
    """Why no line of a file has a finite number for every key, or empty."""
    if absent := [key for key in keys if key not in numbers]:
        return f"{file} has no {' and '.join(absent)}; an older version of dimred wrote it"
    finite = {key: np.isfinite(numbers[key]) for key in keys}
    if np.logical_and.reduce([*finite.values()]).any():
        return ""
    # each key may have a number, but never all in one line
    wrong = [key for key in keys if not finite[key].any()] or keys
    return f"no finite number in {file} for {' and '.join(wrong)}"


def layers_fault(run: Run) -> str:
    if layer_shares(run):
        return ""
    if "layers" in run.result:
        return "layers in result.json cannot be read"
    return fault({}, ["layers"], "result.json")


def against(cost: Cost) -> Drawing:
    """Accuracy against a cost."""
    lacks = result_has("test_accuracy", *cost.keys)

    def fault(run: Run) -> str:
        complete = cost.value(run) is not None and accuracy(run) is not None
        return "" if complete else lacks(run)

    return Drawing(lambda setting, styles: [tradeoff(setting, cost, styles)], fault)


DRAWINGS = {
    **{name: against(cost) for name, cost in COSTS.items()},
    "layers": Drawing(lambda s, styles: [layers(s)], layers_fault),
    "support": Drawing(
        lambda s, styles: [over_time(s, SUPPORT)],
        lines_have("overlap", "explored"),
        reads_metrics=True,
    ),
    "curves": Drawing(
        lambda s, styles: [over_time(s, ACCURACY), over_time(s, LOSS)],
        lines_have("train_loss", "train_accuracy"),
        reads_metrics=True,
    ),
    "history": Drawing(
        lambda s, styles: [history(s, DENSITY), history(s, OVERLAP)],
        history_fault,
        reads_metrics=True,
    ),
}
#: pictures of single runs, drawn only by name
OF_ONE_RUN = {
    "masks": Drawing(lambda s, styles: each_run(s, masks), masks_fault),
    "weights": Drawing(lambda s, styles: each_run(s, weights), weights_fault),
}


def pictures(
    what: str, settings: Sequence[Setting], colours: Sequence[str] = COLOURS
) -> tuple[list[Picture], list[str]]:
    """The pictures of a kind, one or two for each setting, and lines about runs that are not
    drawn."""
    drawing = (DRAWINGS | OF_ONE_RUN)[what]
    runs = list(chain.from_iterable(setting.runs for setting in settings))
    if drawing.reads_metrics:
        read_ahead(run.folder for run in runs)
    styles = styles_of(sorted_methods(settings), sharing(settings), colours)
    of_settings = (drawing.draw(setting, styles) for setting in settings)
    drawn = list(filter(None, chain.from_iterable(of_settings)))
    faults = defaultdict[str, list[str]](list)
    for run in runs:
        if why := drawing.fault(run):
            faults[why].append(run.folder.name)
    notes = [
        f"{what}: {len(names)} of {counted(len(runs), 'run')} not drawn ({why}): {listed(names)}"
        for why, names in faults.items()
    ]
    if not drawn and not faults:
        notes.append(f"{what}: nothing to draw: {NOTHING.get(what, 'all values are the same')}")
    return drawn, notes


NOTHING = {
    "layers": "all weights of all layers are trained and nonzero",
    "support": "the same weights are trained throughout",
}


def sorted_methods(settings: Sequence[Setting]) -> list[str]:
    """The methods of all settings by family, so that neighbours differ in colour."""
    families: dict[str, str] = {}
    for setting in settings:
        families |= setting.methods
    return sorted(families, key=lambda method: (families[method], method))


def sharing(settings: Sequence[Setting]) -> list[list[str]]:
    """For each panel, the methods that are drawn in colour. A Pareto front counts as a panel if
    there are enough colours; otherwise its numbers tell its points apart."""
    found = []
    for setting in settings:
        for cost in COSTS.values():
            marks = marks_of(setting, cost)
            found += [methods for _, methods in panels(setting, marks)]
            front = list(dict.fromkeys(mark.method for mark in pareto(marks)))
            if cost.front and len(front) <= len(COLOURS):
                found.append(front)
    return found
