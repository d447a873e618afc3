"""Check a configuration: its keys, and the types and ranges of their values."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dimred.errors import UserError, first_line, nearest
from dimred.fields import Checked, Range, Sparsity, Step
from dimred.fields.targets import Parameters, hints_of, resolve
from dimred.fields.values import typed
from dimred.runs.config.files import GROUPS, OBJECTIVE, TRACKER, plain_numbers
from dimred.runs.config.objectives import objectives

Seconds = Annotated[float, Range("0 (every step) or more", lambda value: value >= 0)]

#: the keys outside of groups, with their types
KEYS: dict[str, Any] = {
    "sparsity": Sparsity,
    "seed": Step,
    "include": list[str],
    "exclude": list[str],
    "device": str,
    "data_dir": str,
    "outputs": str,
    "checkpoint_seconds": Seconds,
    OBJECTIVE: str | list[str],
}


# -- a whole configuration --------------------
def checked(cfg: DictConfig) -> DictConfig:
    """The configuration without interpolations, its values in their form. UserError for what no run
    can have.

    Hydra has refused unknown keys already, but for +key, and lets ~key pass."""
    known = {*GROUPS, *KEYS, TRACKER}
    for key in sorted(set(cfg) - known):
        raise UserError(f"unknown key {key}. {nearest(key, known)}")
    for key in sorted(known - {TRACKER} - set(cfg)):  # tracker=[] leaves no such key
        raise UserError(f"{key} is missing. Leave out what takes it away (~{key})")
    plain = resolved(cfg)
    for key, hint in KEYS.items():
        plain[key] = typed(plain[key], hint, key)
    objectives(plain[OBJECTIVE])
    require_one_truth(plain)
    for group, given in GROUPS.items():
        if group != "basis" or plain["basis"]:  # basis=none is empty
            plain[group] = checked_group(plain[group], group, given)
    plain[TRACKER] = checked_trackers(plain.get(TRACKER, {}))
    return OmegaConf.create(plain)


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Every interpolation replaced by its value."""
    try:
        for key in sorted(OmegaConf.missing_keys(cfg)):
            raise UserError(f"{key} has no value of its own. Give it one: {key}=...")
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{first_line(error)}, in {error.full_key}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def require_one_truth(plain: Mapping[str, Any]) -> None:
    """UserError if the method has another sparsity or allocation than the run, whose name and
    result tell its own."""
    method = plain["method"] if isinstance(plain["method"], dict) else {}
    for key in {"sparsity", "allocation"} & method.keys():
        value = method[key]
        if plain_numbers(value) != plain_numbers(plain[key]):
            shown = value if isinstance(value, (int, float, str)) else "NAME"
            raise UserError(
                f"method.{key} is another than the {key} of the run. Set it by {key}={shown}; "
                f"a YAML file of a method says {key}: ${{{key}}}"
            )


def checked_trackers(node: Any) -> dict[str, Any]:
    """The values of every tracker, by its name."""
    if not isinstance(node, dict) or not all(isinstance(each, dict) for each in node.values()):
        raise UserError(
            "the configuration of tracker names no trackers. It has one key for each, "
            "tracker.NAME._target_=...; a file tracker/NAME.yaml begins with the line "
            "`# @package tracker.NAME`"
        )
    return {name: checked_group(each, f"{TRACKER}.{name}") for name, each in node.items()}


# -- one group --------------------
def checked_group(node: Any, group: str, given: Collection[str] = ()) -> dict[str, Any]:
    """The group's values in their form. UserError for names that its `_target_` does not take,
    values that are missing and values of other types than its annotations say; `given` are those
    that the runner adds."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    if not isinstance(node, dict) or "_target_" not in node:
        raise UserError(f"the configuration of {group} names no _target_. Choose one: {group}=NAME")
    target, parameters = resolve(node["_target_"], group)
    values = {str(key): value for key, value in node.items() if key != "_target_"}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in values:
        if key in given or not (takes_any or key in parameters):
            raise UserError(
                f"unknown key {group}.{key}. {nearest(key, set(parameters) - set(given))}"
            )
    for key in required(target, parameters):
        if key not in values and key not in given:
            raise UserError(
                f"{group}.{key} is missing. Give it a value where {group} is "
                f"configured, or by +{group}.{key}=..."
            )
    hints = hints_of(target)
    return {"_target_": node["_target_"]} | {
        key: typed(value, hints.get(key, Any), f"{group}.{key}") for key, value in values.items()
    }


def required(target: Any, parameters: Parameters) -> list[str]:
    """The parameters without a default; every field of a Checked class, so that a run's
    configuration is complete. *args and **kwargs need no value."""
    if inspect.isclass(target) and issubclass(target, Checked):
        return list(parameters)
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [key for key, p in parameters.items() if p.default is p.empty and p.kind not in several]
