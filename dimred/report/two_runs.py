"""What differs between two runs: configuration, data, versions, numbers, masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from dimred.errors import UserError
from dimred.report.compose import Json, flat
from dimred.report.masks import compare, require_same_layers
from dimred.report.measures import is_number
from dimred.report.runs import Run, differences
from dimred.storage.masks import read_masks

Pairs = dict[str, tuple[Any, Any]]  # by key, the values of the first and of the second run

#: keys of a result about data, and about the programs and the machine that computed it
DATA = ("inputs",)
VERSIONS = ("python", "versions", "commit", "device", "processes", "backend", "arithmetic")
#: keys that name a run, or that other parts show
NAMES = ("folder", "digest", "command", "status", "reason", "layers")


class Comparison(NamedTuple):
    """masks: as of `dimred mask diff`, or None with the reason. no_numbers: why there are neither
    numbers nor versions."""

    configuration: Pairs
    data: Pairs
    versions: Pairs
    numbers: Pairs
    masks: Json | None
    no_masks: str = ""
    no_numbers: str = ""


def compared(one: Run, other: Run, folders: tuple[Path, Path]) -> Comparison:
    config = differences(one.config, other.config)
    data = {key: config.pop(key) for key in [*config] if is_about_data(key)}
    no_numbers = without_numbers(one, other)
    results = ({}, {}) if no_numbers else (one.result, other.result)
    data |= differences(*(part(result, DATA) for result in results))
    known = {*flat(one.config), *flat(other.config), *DATA, *VERSIONS, *NAMES}
    left = [{key: result[key] for key in result if key not in known} for result in results]
    numbers = {}
    for key, pair in differences(*left).items():
        if any(map(is_number, pair)):
            numbers[key] = pair
    versions = differences(*(part(result, VERSIONS) for result in results))
    return Comparison(config, data, versions, numbers, *masks_of(*folders), no_numbers)


def without_numbers(one: Run, other: Run) -> str:
    """Which of two runs has no result, or empty."""
    lines = []
    for name, run in (("A", one), ("B", other)):
        if not run.result:
            state = "not finished" if run.state == "unfinished" else run.state
            lines.append(f"{name} is {state}: it has no numbers")
    return "; ".join(lines)


def part(result: Json, keys: tuple[str, ...]) -> Json:
    return {key: result[key] for key in keys if key in result}


def is_about_data(key: str) -> bool:
    return key == "data_dir" or key.startswith("dataset.")


def masks_of(one: Path, other: Path) -> tuple[Json | None, str]:
    try:
        masks = read_masks(one), read_masks(other)
        require_same_layers(*masks, one, other)
    except UserError as error:
        return None, str(error)
    found = compare(*masks)
    return found, ""
