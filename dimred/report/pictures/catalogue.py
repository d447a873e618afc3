"""Pictures of runs: what there is to draw, and what each picture needs of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from dimred.report.compose import Json
from dimred.report.pictures.curves import ACCURACY, LOSS, SUPPORT, over_time
from dimred.report.pictures.layers import layers
from dimred.report.pictures.marks import FLOPS, SPARSITY, STORAGE, marks_of, panels, pareto
from dimred.report.pictures.points import Setting, layer_shares, metrics, number
from dimred.report.pictures.style import COLOURS, Picture, Style, styles_of
from dimred.report.pictures.tradeoff import tradeoff
from dimred.report.runs import Run


class Drawing(NamedTuple):
    draw: Callable[[Setting, Mapping[str, Style]], Iterable[Picture | None]]
    fault: Callable[[Run], str]  # of a run that lacks what is needed, in words; or empty


def lines_have(*keys: str) -> Callable[[Run], str]:
    return lambda run: fault(metrics(run.folder), keys, "metrics.jsonl")


def result_has(*keys: str) -> Callable[[Run], str]:
    return lambda run: fault([run.result], keys, "result.json")


def fault(lines: Sequence[Json], keys: Sequence[str], file: str) -> str:
    """Why no line of a file has a finite number for each of these keys; empty if one has."""
    if any(all(number(line, key) is not None for key in keys) for line in lines):
        return ""
    if not lines:
        return f"no line of {file} can be read"
    if absent := [key for key in keys if not any(key in line for line in lines)]:
        return f"{file} has no {' and '.join(absent)}, as older versions of dimred wrote none"
    wrong = [key for key in keys if all(number(line, key) is None for line in lines)] or keys
    return f"no finite number in {file} for {' and '.join(wrong)}"


def layers_fault(run: Run) -> str:
    if layer_shares(run):
        return ""
    return (
        "layers in result.json cannot be read"
        if "layers" in run.result
        else fault([{}], ["layers"], "result.json")
    )


DRAWINGS = {
    "sparsity": Drawing(
        lambda s, styles: [tradeoff(s, SPARSITY, styles)],
        result_has("test_accuracy", "total", "dim", "density"),
    ),
    "storage": Drawing(
        lambda s, styles: [tradeoff(s, STORAGE, styles)],
        result_has("test_accuracy", "storage_bytes"),
    ),
    "flops": Drawing(
        lambda s, styles: [tradeoff(s, FLOPS, styles)],
        result_has("test_accuracy", "training_flops"),
    ),
    "layers": Drawing(lambda s, styles: [layers(s)], layers_fault),
    "support": Drawing(
        lambda s, styles: [over_time(s, SUPPORT)], lines_have("overlap", "explored")
    ),
    "curves": Drawing(
        lambda s, styles: [over_time(s, ACCURACY), over_time(s, LOSS)],
        lines_have("train_loss", "train_accuracy"),
    ),
}


def pictures(what: str, settings: Sequence[Setting]) -> tuple[list[Picture], list[str]]:
    """The pictures of a kind, one or two for each setting, and a line on what is not drawn, and
    why."""
    drawing, styles = DRAWINGS[what], styles_of(sorted_methods(settings), sharing(settings))
    drawn = [
        picture for setting in settings for picture in drawing.draw(setting, styles) if picture
    ]
    runs = [run for setting in settings for run in setting.runs]
    faults = defaultdict[str, list[str]](list)
    for run in runs:
        if why := drawing.fault(run):
            faults[why].append(run.folder.name)
    notes = [
        f"{what}: {len(names)} of {len(runs)} runs are not drawn ({why}): {listed(names)}"
        for why, names in faults.items()
    ]
    if not drawn and not faults:
        notes.append(
            f"{what}: there is nothing to draw: {NOTHING.get(what, 'all values are the same')}"
        )
    return drawn, notes


NOTHING = {
    "layers": "all weights of all layers are trained and nonzero",
    "support": "the same weights are trained throughout",
}


def sorted_methods(settings: Sequence[Setting]) -> list[str]:
    """By family, over all settings, so that neighbours differ in colour."""
    families = {
        method: family for setting in settings for method, family in setting.methods.items()
    }
    return sorted(families, key=lambda method: (families[method], method))


def sharing(settings: Sequence[Setting]) -> list[list[str]]:
    """The methods that share a panel in colour, for each such panel. A Pareto front is one if there
    are enough colours; its points are numbered, too."""
    found = []
    for setting in settings:
        for cost in (SPARSITY, STORAGE, FLOPS):
            marks = marks_of(setting, cost)
            found += [methods for _, methods in panels(setting, marks)]
            front = list({mark.method: None for mark in pareto(marks)}) if cost.front else []
            found += [front] if len(front) <= len(COLOURS) else []
    return found


def listed(names: Iterable[str], most: int = 3) -> str:
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
