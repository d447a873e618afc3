"""What tells runs of one folder apart, besides their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dimred.report.compose import Json, flat
from dimred.report.runs import Run
from dimred.runs.config.files import AS_BEFORE, CHOICES

#: in the name of a run's folder, as the seed is
NAMED = ("method._target_", "method.sparsity")
#: groups whose values are compared only between runs that chose the same class or function: others
#: have other keys, and other defaults
OF_ONE_TARGET = ("method", "basis", "model", "dataset")
LEFT_OUT = flat(dict(AS_BEFORE))  # a description does not have these values


def keys_apart(runs: Iterable[Run]) -> list[str]:
    """The keys of the command line in which runs differ, in the order of the configuration."""
    first: dict[tuple[str, ...], Any] = {}
    found: dict[str, bool] = {}
    for run in runs:
        if not run.description:  # damaged
            continue
        values = flat(run.description)
        targets = {group: str(values.get(f"{group}._target_")) for group in OF_ONE_TARGET}
        # the keys of the description come first, and its values count
        for key, value in {**values, **LEFT_OUT, **values}.items():
            group = key.partition(".")[0]
            alike = "" if key == f"{group}._target_" else targets.get(group, "")
            differs = first.setdefault((key, alike), value) != value
            found[key] = found.get(key, False) or differs
    return [key.removesuffix("._target_") for key in found if found[key] and key not in NAMED]


def titles(keys: Sequence[str], others: Iterable[str] = ()) -> dict[str, str]:
    """The last word of each key, or the whole key where another column has this word."""
    words = [key.rpartition(".")[2] for key in keys]
    taken = [*words, *others]
    found = {}
    for key, word in zip(keys, words, strict=True):
        found[key] = key if taken.count(word) > 1 else word
    return found


def value_in(config: Json, key: str) -> Any:
    """The value of a key in a flat configuration, "" without one; of a group, the name of its
    file."""
    if f"{key}._target_" in config:
        return config.get(f"{CHOICES}.{key.rpartition('.')[2]}") or config[f"{key}._target_"]
    return config.get(key, "")
