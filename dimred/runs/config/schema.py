"""What a configuration may say: its keys, and the types of their values.

A value has one form, that of its annotation: 1 is 1.0 where a float is expected, and 2.0 is 2 where
a whole number is. So a run has one name, however its numbers were typed.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import pkgutil
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dimred.errors import UserError, as_typed, nearest, require
from dimred.runs.config.files import GROUPS, number, plain_numbers

#: the keys of the configuration that are no groups, with their types
KEYS: dict[str, Any] = {
    "sparsity": float,
    "seed": int,
    "include": list[str],
    "exclude": list[str],
    "device": str,
    "data_dir": str,
    "outputs": str,
    "checkpoint_seconds": float,
}

Parameters = Mapping[str, inspect.Parameter]


# -- a whole configuration --------------------
def checked(cfg: DictConfig) -> DictConfig:
    """The configuration without interpolations, its values in their form. UserError for what no run
    can have.

    Hydra has refused unknown keys already, but for +key, and lets ~key pass."""
    known = {*GROUPS, *KEYS}
    for key in sorted(set(cfg) - known):
        raise UserError(f"unknown key {key}. {nearest(key, known)}")
    for key in sorted(known - set(cfg)):
        raise UserError(f"{key} is missing. Leave out what takes it away (~{key})")
    plain = resolved(cfg)
    for key, hint in KEYS.items():
        plain[key] = typed(plain[key], hint, key)
    sparsity, seed, seconds = plain["sparsity"], plain["seed"], plain["checkpoint_seconds"]
    require(
        0 <= sparsity < 1,
        "sparsity",
        f"{sparsity:g}",
        "a number in [0, 1): the fraction that is not trained",
    )
    require(0 <= seed < 2**63, "seed", seed, "a whole number, 0 or more (and less than 2^63)")
    require(seconds >= 0, "checkpoint_seconds", f"{seconds:g}", "0 (every step) or more")
    require_one_truth(plain)
    for group, given in GROUPS.items():
        if group != "basis" or plain["basis"]:  # basis=none is empty
            plain[group] = checked_group(plain[group], group, given)
    return OmegaConf.create(plain)


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Every interpolation replaced by its value."""
    try:
        for key in sorted(OmegaConf.missing_keys(cfg)):
            raise UserError(f"{key} has no value of its own. Give it one: {key}=...")
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{str(error).splitlines()[0]}, in {error.full_key}") from error
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
    for key in required(parameters):
        if key not in values and key not in given:
            raise UserError(
                f"{group}.{key} is missing. Give it a value where {group} is "
                f"configured, or by +{group}.{key}=..."
            )
    hints = hints_of(target)
    return {"_target_": node["_target_"]} | {
        key: typed(value, hints.get(key, Any), f"{group}.{key}") for key, value in values.items()
    }


def resolve(name: str, group: str) -> tuple[Any, Parameters]:
    """What package.module.NAME is, and the parameters it takes."""
    try:
        # what, and the module it is in
        target = pkgutil.resolve_name(":".join(name.rsplit(".", 1)))
        return target, inspect.signature(target).parameters
    except Exception as error:
        raise UserError(
            f"{group}._target_={name} cannot be imported ({error}). If it is your "
            "own, put its folder on PYTHONPATH"
        ) from error


def required(parameters: Parameters) -> list[str]:
    """The parameters that have no default; *args and **kwargs need none."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [key for key, p in parameters.items() if p.default is p.empty and p.kind not in several]


def hints_of(target: Any) -> Mapping[str, Any]:
    """The types of its parameters; none if they name what cannot be found."""
    plain_class = inspect.isclass(target) and not dataclasses.is_dataclass(target)
    try:
        return typing.get_type_hints(target.__init__ if plain_class else target)
    except Exception:  # of another's code, which may say anything
        return {}


# -- one value --------------------
LARGEST_INT = 2**63 - 1  # that tensors count with
LARGEST_FLOAT = 3.4028e38  # of float32, in which training computes


class Misfit(Exception):
    """A value is not of the type that its annotation says."""


def typed(value: Any, hint: Any, key: str) -> Any:
    """The value in the form of its annotation. UserError if it has none."""
    try:
        return form(value, hint, key)
    except Misfit:
        large = isinstance(value, (int, float)) and LARGEST_INT < abs(value) < math.inf
        limit = ""
        if large:
            limit = f", at most {LARGEST_INT:.1e} if it is whole and {LARGEST_FLOAT:.1e} if not"
        raise UserError(
            f"{key}={as_typed(value)} is not allowed. It must be {named(hint)}{limit}."
        ) from None


def fits(value: Any, hint: Any) -> bool:
    try:
        form(value, hint, "")
    except Misfit:
        return False
    return True


def form(value: Any, hint: Any, key: str) -> Any:
    """What `value`, from a YAML file, is as a `hint`; Misfit if it is nothing of the kind."""
    origin = typing.get_origin(hint)
    if isinstance(value, dict) and "_target_" in value:
        return built(value, key)
    if hint in (Any, object, inspect.Parameter.empty):
        return plain_values(value)
    if origin is typing.Literal:
        return first(lambda one: literal(value, one), typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return first(lambda one: form(value, one, key), typing.get_args(hint))
    if isinstance(value, list):
        return items(value, hint, key)
    if isinstance(value, dict) and isinstance(origin or hint, type):
        return entries(value, hint, key)
    if hint in (int, float):
        return numeric(value, hint)
    if not isinstance(hint, type) and origin is None:
        return plain_values(value)  # a type variable, or another annotation that says little
    if (
        origin is not None
        or isinstance(value, bool) != (hint is bool)
        or not is_instance(value, hint)
    ):
        raise Misfit
    return value


def built(value: dict[str, Any], key: str) -> dict[str, Any]:
    """The description of an object within a group: its numbers in their form. What it lacks, its
    class will say."""
    target, _ = resolve(value["_target_"], key)
    hints = hints_of(target)
    return {
        name: each if name == "_target_" else typed(each, hints.get(name, Any), f"{key}.{name}")
        for name, each in value.items()
    }


def numeric(value: Any, hint: type) -> int | float:
    """2.0 is the whole number 2, and 1 is the real number 1.0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Misfit
    if isinstance(value, int) and hint is int and abs(value) <= LARGEST_INT:
        return value
    try:
        real = number(float(value))
    except OverflowError:  # more digits than floats have
        raise Misfit from None
    if not abs(real) <= LARGEST_FLOAT:  # nor is nan
        raise Misfit
    if hint is float:
        return real
    if not real.is_integer() or abs(real) > 2**53:  # beyond, floats miss whole numbers
        raise Misfit
    return int(real)


def is_instance(value: Any, hint: type) -> bool:
    try:
        return isinstance(value, hint)
    except TypeError:  # a protocol, which no number or name satisfies
        return False


def literal(value: Any, one: Any) -> Any:
    if isinstance(value, bool) != isinstance(one, bool) or value != one:
        raise Misfit
    return one


def first(fit: Callable[[Any], Any], choices: tuple[Any, ...]) -> Any:
    """The form of the first choice that the value fits."""
    for one in choices:
        try:
            return fit(one)
        except Misfit:
            continue
    raise Misfit


def items(value: list[Any], hint: Any, key: str) -> list[Any]:
    """A list, each of the type that the annotation says: list[float], tuple[int, int],
    Sequence[str]."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is None or not issubclass(origin, Collection) or issubclass(origin, Mapping):
        if hint in (list, tuple):
            return plain_values(value)
        raise Misfit
    if origin is tuple and Ellipsis not in arguments:
        if len(arguments) != len(value):
            raise Misfit
        return [form(each, one, key) for each, one in zip(value, arguments, strict=True)]
    return [form(each, arguments[0], key) for each in value]


def entries(value: dict[str, Any], hint: Any, key: str) -> dict[str, Any]:
    """A dictionary, its values of the type that the annotation says: dict[str, float]."""
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if not issubclass(origin, Mapping):
        raise Misfit
    if not arguments:
        return plain_values(value)
    return {
        form(name, arguments[0], key): form(each, arguments[1], key) for name, each in value.items()
    }


def plain_values(value: Any) -> Any:
    """Without an annotation: as it is, but decimals in their short form."""
    if isinstance(value, dict):
        return {key: plain_values(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain_values(each) for each in value]
    return number(value) if isinstance(value, float) else value


def named(hint: Any) -> str:
    """An annotation in words."""
    words = {
        int: "a whole number",
        float: "a finite number",
        str: "a name",
        bool: "true or false",
        type(None): "null",
    }
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, arguments))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        choices = [one for one in arguments if one is not int or float not in arguments]
        return " or ".join(map(named, choices))
    if arguments and typing.get_origin(hint) in (list, tuple):
        return f"a list in brackets, each {named(arguments[0])}"
    return words.get(hint, getattr(hint, "__name__", str(hint)))
