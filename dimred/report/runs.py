"""Run folders, found and read by their content: config.yaml says what a run is, result.json what
came of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dimred.errors import UserError
from dimred.report.compose import Json, flat, read_yaml
from dimred.runs.config.files import description, plain_numbers

LEFT_BY_RUNS = (
    "result.json",
    "log.txt",
    ".lock",
)  # so it is one, whatever has become of its config.yaml
State = Literal["done", "failed", "unfinished", "damaged"]


@dataclass(frozen=True)
class Run:
    """A run as its folder tells it, whatever version of dimred wrote it.

    description: what determines the result, but for the seed; empty if the run is damaged
    result: result.json, or nothing
    why: it failed, or what is damaged
    """

    folder: Path
    seed: int
    description: Json
    state: State
    result: Json
    why: str = ""

    @property
    def key(self) -> str:
        return key(self.description)


def key(description: Json) -> str:
    """Equal descriptions have equal keys, 20 and 20.0 being equal."""
    return json.dumps(plain_numbers(description), sort_keys=True)


def find_runs(folder: Path) -> list[Run]:
    """Every run below a folder, in the order of their paths. UserError if there is no such
    folder."""
    if not folder.is_dir():
        raise UserError(
            f"no folder {folder}. Name the one that holds the runs (of `dimred train`: outputs), "
            "or train some"
        )
    places = {path.parent for name in ("config.yaml", "result.json") for path in folder.rglob(name)}
    runs = [read_run(place) for place in sorted(places)]
    return [
        run
        for run in runs
        if run.description or any((run.folder / name).exists() for name in LEFT_BY_RUNS)
    ]


def read_run(folder: Path) -> Run:
    """A run's folder; what is wrong with it is told by its state."""
    path = folder / "config.yaml"
    try:
        what = description(read_yaml(path))
        seed = what.pop("seed")
        flat(what)["method._target_"]
        key(what)
        if type(seed) is not int:
            raise TypeError(f"seed={seed}")
    except (UserError, AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        why = (
            str(error)
            if isinstance(error, UserError)
            else f"config.yaml describes no run ({error!r})"
        )
        return Run(
            folder, -1, {}, "damaged", {}, why if path.exists() else "config.yaml is missing"
        )
    try:
        result = json.loads((folder / "result.json").read_text())
        if not isinstance(result, dict):
            raise ValueError("it is no object")
        state = result.get("status")
        if state in ("done", "failed"):
            return Run(folder, seed, what, state, result, str(result.get("reason", "")))
        why = f"result.json has the status {state!r}"
    except FileNotFoundError:
        return Run(folder, seed, what, "unfinished", {}, "interrupted, or still running")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        why = f"result.json cannot be read ({error})"
    return Run(folder, seed, what, "damaged", {}, why)


def differences(run: Json, wanted: Json) -> dict[str, tuple[Any, Any]]:
    """Where two descriptions differ: (the run's value, the wanted one), "absent" where there is
    none."""
    one, other = flat(run), flat(wanted)
    return {
        name: (one.get(name, "absent"), other.get(name, "absent"))
        for name in sorted(one.keys() | other.keys())
        if plain_numbers(one.get(name, "absent")) != plain_numbers(other.get(name, "absent"))
    }


def same_experiment(description: Json) -> tuple[str, ...]:
    """What runs have in common that a reader might take for one: method, sparsity, model and
    data."""
    values = flat(plain_numbers(description))
    about = (
        "method._target_",
        "method.sparsity",
        "method.dim",
        "dataset._target_",
        "dataset.path",
        "basis._target_",
    )
    model = {name: value for name, value in values.items() if name.startswith("model.")}
    return (*(str(values.get(name)) for name in about), key(model))


def newest(runs: Iterable[Run]) -> Run:
    """Of several folders that hold the same run: one that is done, and of these the one written
    last."""
    return max(
        runs, key=lambda run: (run.state == "done", run.state == "failed", _written(run.folder))
    )


def _written(folder: Path) -> float:
    path = folder / "result.json"
    return path.stat().st_mtime if path.exists() else 0.0
