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


#: keys that say where and how to compute, not what; of the last two, what a method uses is among its own values
NOT_DESCRIPTIVE = ("device", "data_dir", "outputs", "checkpoint_seconds", "sparsity", "allocation")


def description(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What determines the result, of a configuration without interpolations. A sparsity or an allocation counts only
    where the method has one; where the data lie does not."""
    found = {key: value for key, value in cfg.items() if key not in NOT_DESCRIPTIVE}
    if not found.get("basis"):
        found.pop("basis", None)    # of all runs that have none, those included that are older than bases
    found["dataset"] = {key: anywhere(value, str(cfg["data_dir"])) for key, value in found["dataset"].items()
                        if key not in ("data_dir", "workers")}
    return found


def anywhere(value: Any, data_dir: str) -> Any:
    """A data set's path may lie in data_dir."""
    inside = isinstance(value, str) and f"{value}/".startswith(f"{data_dir}/")
    return f"data_dir{value[len(data_dir):]}" if inside else value


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
