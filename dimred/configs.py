"""The folder of configurations and what lies in it, read without Hydra (or torch)."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dimred.describe import describe

#: the groups of the configuration, with what the runner adds to their values
GROUPS: Mapping[str, tuple[str, ...]] = {
    "method": (), "model": ("shape", "classes"), "dataset": (), "allocation": (), "recipe": (), "basis": ()}


def conf() -> Path:
    """The folder of configurations: within the installed package, or at the top of the source tree."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.exists() else Path(__file__).parents[1] / "conf"


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (conf() / group).glob("*.yaml"))


def read(group: str, name: str) -> dict[str, Any]:
    """A file of a group."""
    return yaml.safe_load((conf() / group / f"{name}.yaml").read_text())


def describe_method(name: str) -> dict[str, str]:
    """What a method is, from its docstring."""
    return {"name": name, **describe(read("method", name)["_target_"])}
