"""Runs as flat rows, for pandas: a column for every number and every value of the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any

from dimred.report.remote import place_of
from dimred.report.runs import Run, find_runs

LONG = ("layers", "command")  # keys of a result that only `dimred show RUN --json` prints


def results(folder: str | PathLike[str] = "outputs/runs") -> list[dict[str, Any]]:
    """Every run below a folder as a flat row, finished or not: `pandas.DataFrame(results())`.

    The columns are those of `dimred runs --format csv`: folder, state, the configuration by the
    keys of the command line (recipe.lr), and the numbers of result.json."""
    return [flat_row(run) for run in find_runs(place_of(folder))]


def flat_row(run: Run) -> dict[str, Any]:
    """A run in flat columns: folder and state, configuration, result."""
    about = {"folder": str(run.folder), "state": run.state, "why": run.why}
    result = {key: value for key, value in run.result.items() if key not in LONG}
    if "device" in result:  # `device` is the key of the command line: auto, cpu or cuda
        result["device_name"] = result.pop("device")
    # the folder's own state stands, whatever a file of the run says
    return about | dict(columns(run.config)) | dict(columns(result)) | about


def columns(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten: {"recipe": {"lr": 0.1}} is recipe.lr: 0.1."""
    for key, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, dict):
            yield from columns(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
