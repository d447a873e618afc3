"""The folder of configurations and what lies in it, read without Hydra (or torch)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dimred.errors import UserError, as_typed, nearest
from dimred.fields.values import short_decimal
from dimred.runs.config.docstrings import describe

#: the groups of the configuration, with what the runner adds to their values
GROUPS: Mapping[str, tuple[str, ...]] = {
    "method": (),
    "model": ("shape", "classes"),
    "dataset": (),
    "allocation": (),
    "recipe": (),
    "basis": (),
}

#: a group of which a run may have several members, each at its own place: tracker.NAME
TRACKER = "tracker"
EXPERIMENT = "experiment"  # files that choose members of groups and set values: +experiment=NAME
OBJECTIVE = "objective"  # of a search: numbers of result.json

#: keys that say where and how to compute, not what; of the last two, what a method uses is among
#: its own values
NOT_DESCRIPTIVE = (
    *("device", "data_dir", "outputs", "checkpoint_seconds", TRACKER, OBJECTIVE),
    *("sparsity", "allocation"),
)
#: the same within a group: neither workers, captured steps nor rewritten weights change a bit
HOW_TO_COMPUTE: Mapping[str, tuple[str, ...]] = {
    "dataset": ("data_dir", "workers"),
    "recipe": ("capture", "theta"),
}
CHOICES = "choices"  # in a run's config.yaml: the names of the chosen files
STORED = "stored/"  # a file of this name has the values of the run that is run again

#: {group: {field: value}}: fields that were added later, with the value that older runs used.
#: At this value a field does not enter the digest, so that a run keeps its name
AS_BEFORE: Mapping[str, Mapping[str, Any]] = {
    "method": {"augment": False, "scale_fan_in": False, "norm_eval": False},
    "recipe": {
        "decay_all": False,
        "augmented_copies": None,
        "cache_frozen_mb": 0,
        "cache_frozen_disk_mb": 0,
        "skip_removed_channels": False,
        "sync_batchnorm": False,
        "arithmetic": "dense",
        "power": 1.0,
        "cycles": 1,
        "lowest": 0.1,
        "accumulate": 1,
        "augment": "none",
        "erasing": 0.0,
        "mixup": 0.0,
        "cutmix": 0.0,
        "ema": 0.0,
        "patience": None,
        "fp16": False,
        "deterministic": True,
    },
    "dataset": {"channels": 3, "skip_corrupted": False},
}

# of the groups, the names of the chosen files: {"method": "rigl", ...}
Choices = Mapping[str, str]


def description(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What determines the result, of a configuration without interpolations. A sparsity or an
    allocation counts only where the method has one; where the data lie does not."""
    found = {key: value for key, value in cfg.items() if key not in (*NOT_DESCRIPTIVE, CHOICES)}
    if not found.get("basis"):
        found.pop(
            "basis", None
        )  # of all runs that have none, those included that are older than bases
    for group, before in AS_BEFORE.items():
        found[group] = {
            key: value
            for key, value in found[group].items()
            if key not in before or value != before[key]
        }
    for group, keys in HOW_TO_COMPUTE.items():
        found[group] = {key: value for key, value in found[group].items() if key not in keys}
    found["dataset"] = {
        key: anywhere(value, str(cfg["data_dir"])) for key, value in found["dataset"].items()
    }
    return without_places(found)


def without_places(node: Any) -> Any:
    """With the classes and functions of dimred by their names alone, so that a run keeps its name
    when code moves; those of users by their full paths."""
    if isinstance(node, list):
        return [without_places(each) for each in node]
    if not isinstance(node, dict):
        return node
    plain = {key: without_places(value) for key, value in node.items()}
    target = str(plain.get("_target_", ""))
    if target.startswith("dimred."):
        plain["_target_"] = target.rpartition(".")[2]
    return plain


def anywhere(value: Any, data_dir: str) -> Any:
    """A data set's path may lie in data_dir."""
    inside = isinstance(value, str) and f"{value}/".startswith(f"{data_dir}/")
    return f"data_dir{value[len(data_dir) :]}" if inside else value


# -- one form for what can be typed in several --------------------
def plain_numbers(value: Any) -> Any:
    """With every number as a float: what compares configurations where the types of their values
    are unknown."""
    if isinstance(value, dict):
        return {name: plain_numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain_numbers(each) for each in value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return short_decimal(float(value))


def require_plain_names(choices: Mapping[str, object]) -> None:
    """UserError unless every group's choice is the name of a file: the names of run folders are
    made of them."""
    for group, choice in choices.items():
        if (
            not re.fullmatch(r"\w[\w.+-]*", name := str(choice))
            or name.endswith((".yaml", ".yml"))
            or not choice
        ):
            stem = name.rpartition("/")[2].removesuffix(".yaml").removesuffix(".yml")
            words = re.findall(r"\w[\w.+-]*", stem.replace("null", ""))
            plain = words[0] if choice and words else "NAME"
            raise UserError(
                f"{group}={as_typed(choice)} is not allowed. It must be the plain name of one "
                "file: "
                f"{group}={plain}"
            )


def unknown_name(group: str, name: str, allowed: Iterable[str]) -> str:
    """The error for a name that no file of a group has: the nearest names, and how to list all if
    they are many."""
    command = "dimred methods" if group == "method" else "dimred train --help"
    hint = nearest(name, allowed)
    more = f" To list all: {command}" if hint.endswith("others.") else ""
    return f"unknown {group} {name!r}. {hint}{more}"


# -- files --------------------
def conf() -> Path:
    """The folder of configurations: within the installed package, or at the top of the source
    tree."""
    package = Path(__file__).parents[2]
    inside = package / "conf"
    return inside if inside.exists() else package.parent / "conf"


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (conf() / group).glob("*.yaml"))


def read(group: str, name: str) -> dict[str, Any]:
    """A file of a group."""
    return yaml.safe_load((conf() / group / f"{name}.yaml").read_text())


def describe_method(name: str) -> dict[str, str]:
    """What a method is, from its docstring."""
    return {"name": name, **describe(read("method", name)["_target_"])}


@cache
def targets(group: str) -> list[str]:
    """The classes and functions that the files of a group name."""
    files = [read(group, name) or {} for name in names(group)]
    return sorted({values["_target_"] for values in files if "_target_" in values})
