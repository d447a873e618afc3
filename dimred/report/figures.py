"""Pictures of runs: what there is to draw, and what each picture needs of a run."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from dimred.report.figures_data import Setting, layer_shares, metrics, number
from dimred.report.figures_layers import layers
from dimred.report.figures_marks import FLOPS, SPARSITY, STORAGE
from dimred.report.figures_style import Picture, Style, styles_of
from dimred.report.figures_time import ACCURACY, LOSS, SUPPORT, over_time
from dimred.report.figures_tradeoff import tradeoff
from dimred.report.runs import Run


class Drawing(NamedTuple):
    draw: Callable[[Setting, Mapping[str, Style]], Iterable[Picture | None]]
    needs: str                          # in words
    has: Callable[[Run], bool]          # what is needed?


def lines_have(*keys: str) -> Callable[[Run], bool]:
    return lambda run: any(all(number(line, key) is not None for key in keys) for line in metrics(run.folder))


def result_has(*keys: str) -> Callable[[Run], bool]:
    return lambda run: all(number(run.result, key) is not None for key in keys)


DRAWINGS = {
    "sparsity": Drawing(lambda s, styles: [tradeoff(s, SPARSITY, styles)],
                        "test_accuracy, total, dim and density in result.json",
                        result_has("test_accuracy", "total", "dim", "density")),
    "storage": Drawing(lambda s, styles: [tradeoff(s, STORAGE, styles)],
                       "test_accuracy and storage_bytes in result.json", result_has("test_accuracy", "storage_bytes")),
    "flops": Drawing(lambda s, styles: [tradeoff(s, FLOPS, styles)],
                     "test_accuracy and training_flops in result.json", result_has("test_accuracy", "training_flops")),
    "layers": Drawing(lambda s, styles: [layers(s)], "layers in result.json", lambda run: bool(layer_shares(run))),
    "support": Drawing(lambda s, styles: [over_time(s, SUPPORT)], "overlap and explored in metrics.jsonl",
                       lines_have("overlap", "explored")),
    "curves": Drawing(lambda s, styles: [over_time(s, ACCURACY), over_time(s, LOSS)], "training lines in metrics.jsonl",
                      lines_have("train_loss", "train_accuracy")),
}


def pictures(what: str, settings: Sequence[Setting]) -> tuple[list[Picture], list[str]]:
    """The pictures of a kind, one or two for each setting, and a line on what is not drawn, and why."""
    drawing, styles = DRAWINGS[what], styles_of(sorted_methods(settings))
    drawn = [picture for setting in settings for picture in drawing.draw(setting, styles) if picture]
    runs = [run for setting in settings for run in setting.runs]
    notes = []
    if lacking := [run for run in runs if not drawing.has(run)]:
        notes.append(f"{what}: {len(lacking)} of {len(runs)} runs have no {drawing.needs}, as older versions of dimred "
                     f"wrote none, and are not drawn: {listed(run.folder.name for run in lacking)}")
    elif not drawn:
        notes.append(f"{what}: there is nothing to draw: {NOTHING.get(what, 'all values are the same')}")
    return drawn, notes


NOTHING = {"layers": "all weights of all layers are trained and nonzero", "support": "no support moves"}


def sorted_methods(settings: Sequence[Setting]) -> list[str]:
    """By family, over all settings, so that neighbours differ in colour."""
    families = {method: family for setting in settings for method, family in setting.methods.items()}
    return sorted(families, key=lambda method: (families[method], method))


def listed(names: Iterable[str], most: int = 3) -> str:
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
