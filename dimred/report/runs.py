"""Find and read run folders by their content: config.yaml is the configuration, result.json the
result."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from dimred.errors import UserError
from dimred.garbage import uncollected
from dimred.report.compose import Json, flat, read_bytes
from dimred.report.index import Index, index_for
from dimred.report.remote import Place, Remote
from dimred.runs.config.files import description, plain_numbers

#: files by which runs are found; either may be missing from a damaged run
FOUND_BY = {"config.yaml", "result.json"}
#: files that make a folder a run, even if its config.yaml is damaged
LEFT_BY_RUNS = ("result.json", "log.txt", ".lock")
State = Literal["done", "failed", "unfinished", "damaged"]


@dataclass(frozen=True, eq=False)
class Run:
    """A run as read from its folder, of any version of dimred.

    description: all settings that determine the result, except the seed; empty if damaged
    result: result.json, or empty
    why: the reason of a failure or of damage
    config: config.yaml, or empty
    """

    folder: Place
    seed: int
    description: Json
    state: State
    result: Json
    why: str = ""
    config: Json = field(default_factory=dict)

    @cached_property
    def text(self) -> str:
        """The description as text: runs that differ in their seed have the same."""
        return as_text(self.description)

    @property
    def key(self) -> str:
        return key_of(self.text)


def key(description: Json) -> str:
    """Equal descriptions have equal keys, 20 and 20.0 being equal."""
    return json.dumps(plain_numbers(description), sort_keys=True)


def as_text(description: Json) -> str:
    return json.dumps(description, sort_keys=True)


@cache
def key_of(text: str) -> str:
    return key(json.loads(text))


@cache
def require_comparable(text: str) -> None:
    """Raise what comparisons of runs with this description would raise."""
    flat(json.loads(text))["method._target_"]
    key_of(text)


def find_runs(folder: Place) -> list[Run]:
    """All runs below a folder or URL, in the order of their paths. UserError if it does not
    exist."""
    if not folder.is_dir():
        raise UserError(
            f"no folder {folder}. Name a folder of runs (`dimred train` writes to outputs), or "
            "train some"
        )
    places = run_folders(folder)
    # looking for cycles in what many runs contain, which has none, took a third of the time
    with index_for(len(places)) as index, uncollected():
        runs = [read_run(place, index) for place in places]
    return [run for run in runs if run.description or was_left_by_run(run.folder)]


def run_folders(folder: Place) -> list[Place]:
    """The folders of all runs below a folder, in the order of their paths."""
    if isinstance(folder, Remote):
        return folder.folders_with(FOUND_BY)
    found = []
    for place, folders, files in os.walk(folder):
        if not FOUND_BY.isdisjoint((*folders, *files)):
            found.append(Path(place))
    return [*sorted(found)]


def find_in(folders: Iterable[Place]) -> list[Run]:
    """All runs below several folders, each once."""
    found = [find_runs(folder) for folder in folders]
    if len(found) == 1:  # nothing is in it twice, and resolving ten thousand paths takes a while
        return found[0]
    return [*{run.folder.resolve(): run for run in chain.from_iterable(found)}.values()]


def was_left_by_run(folder: Place) -> bool:
    return any((folder / name).exists() for name in LEFT_BY_RUNS)


def read_run(folder: Place, index: Index | None = None) -> Run:
    """Read the folder of a run. Any damage is in its state and reason; nothing is raised."""
    path, config = folder / "config.yaml", {}
    try:
        config = (index or Index()).parse(read_bytes(path), path)
        what = description(config)
        seed = what.pop("seed")
        # here, where it is the damage of one run
        require_comparable(as_text(what))
        if type(seed) is not int:
            raise TypeError(f"seed={seed}")
    except (UserError, AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        why = f"config.yaml describes no run ({error!r})"
        if isinstance(error, UserError):
            why = str(error)
        if not path.exists():
            why = "config.yaml is missing"
        return Run(folder, -1, {}, "damaged", {}, why, config)
    try:
        result = json.loads((folder / "result.json").read_text())
        if not isinstance(result, dict):
            raise ValueError("it is not an object")
        state = result.get("status")
        if state in ("done", "failed"):
            return Run(folder, seed, what, state, result, str(result.get("reason", "")), config)
        why = f"result.json has the status {state!r}"
    except FileNotFoundError:
        why = "interrupted, or still running"
        return Run(folder, seed, what, "unfinished", {}, why, config)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        why = f"result.json cannot be read ({error})"
    return Run(folder, seed, what, "damaged", {}, why, config)


def differences(run: Json, wanted: Json) -> dict[str, tuple[Any, Any]]:
    """The keys in which two descriptions differ, with (the run's value, the wanted value); a
    missing one is "absent"."""
    one, other = flat(run), flat(wanted)
    found = {}
    for name in sorted(one.keys() | other.keys()):
        pair = one.get(name, "absent"), other.get(name, "absent")
        if plain_numbers(pair[0]) != plain_numbers(pair[1]):
            found[name] = pair
    return found


def same_experiment(description: Json) -> tuple[str, ...]:
    """What a reader takes for the same experiment: method, sparsity, model and data."""
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
    """Of several folders with the same run, the one that counts: done before failed, then by the
    time of writing."""

    def order(run: Run) -> tuple[bool, bool, float]:
        return run.state == "done", run.state == "failed", _written(run.folder)

    return max(runs, key=order)


def _written(folder: Place) -> float:
    path = folder / "result.json"
    return path.stat().st_mtime if path.exists() else 0.0
