"""Checks a value against an annotation and converts it to one form.

1 becomes 1.0 if a float is expected, and 2.0 becomes 2 if a whole number is. So the name of a run
does not depend on how its numbers were typed.
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

from dimred.errors import UserError, as_typed
from dimred.fields.ranges import Range
from dimred.fields.targets import hints_of, resolve

LARGEST_INT = 2**63 - 1  # of a tensor
LARGEST_FLOAT = 3.4028e38  # of float32, in which training computes


class Misfit(Exception):
    """The value does not fit its annotation."""


def typed(value: Any, hint: Any, key: str) -> Any:
    """The value in the form of its annotation. UserError if it does not fit."""
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
    """A value, from YAML or from Python, in the form of `hint`. Misfit if it does not fit."""
    origin = typing.get_origin(hint)
    if isinstance(value, dict) and "_target_" in value:
        return described(value, key)
    if hint in (Any, object, inspect.Parameter.empty):
        return plain_values(value)
    if origin is Annotated:
        return within_ranges(value, hint, key)
    if origin is typing.Literal:
        return first(lambda one: literal(value, one), typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return first(lambda one: form(value, one, key), typing.get_args(hint))
    if isinstance(value, (list, tuple)):
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


def within_ranges(value: Any, hint: Any, key: str) -> Any:
    """The form of a value of an Annotated type. Misfit unless all its ranges allow it."""
    formed = form(value, typing.get_args(hint)[0], key)
    if not all(each.allows(formed) for each in ranges_of(hint)):
        raise Misfit
    return formed


def ranges_of(hint: Any) -> list[Range]:
    return [each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Range)]


def described(value: dict[str, Any], key: str) -> dict[str, Any]:
    """The description of an object (`_target_`) within a group, its values in their form. Missing
    values are reported by its class."""
    target, _ = resolve(value["_target_"], key)
    hints = hints_of(target)
    out = dict(value)
    for name, each in value.items():
        if name != "_target_":
            out[name] = typed(each, hints.get(name, Any), f"{key}.{name}")
    return out


def numeric(value: Any, hint: type) -> int | float:
    """A number as int or float: 2.0 becomes the whole number 2, and 1 the real number 1.0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Misfit
    if isinstance(value, int) and hint is int and abs(value) <= LARGEST_INT:
        return value
    try:
        real = short_decimal(float(value))
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
        return not isinstance(value, (int, float, str, types.NoneType))


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


def items(value: Collection[Any], hint: Any, key: str) -> list[Any]:
    """A list whose items fit the annotation: list[float], tuple[int, int], Sequence[str]."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is None or not issubclass(origin, Collection) or issubclass(origin, Mapping):
        if hint in (list, tuple):
            return plain_values(list(value))
        raise Misfit
    if origin is tuple and Ellipsis not in arguments:
        if len(arguments) != len(value):
            raise Misfit
        return [form(each, one, key) for each, one in zip(value, arguments, strict=True)]
    return [form(each, arguments[0], key) for each in value]


def entries(value: dict[str, Any], hint: Any, key: str) -> dict[str, Any]:
    """A dictionary whose keys and values fit the annotation: dict[str, float]."""
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if not issubclass(origin, Mapping):
        raise Misfit
    if not arguments:
        return plain_values(value)
    return {
        form(name, arguments[0], key): form(each, arguments[1], key) for name, each in value.items()
    }


def plain_values(value: Any) -> Any:
    """A value without an annotation, unchanged except that decimals take their short form."""
    if isinstance(value, dict):
        return {key: plain_values(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain_values(each) for each in value]
    return short_decimal(value) if isinstance(value, float) else value


def short_decimal(value: float) -> float:
    """A number without rounding error: 0.7 for 0.7000000000000001 (of range(0.5,1,0.2)), 0.0 for
    -0.0."""
    short = float(f"{value:.12g}")
    return (short if math.isclose(value, short, rel_tol=1e-15) else value) + 0.0


# -- an annotation in words --------------------
WORDS = {
    int: "a whole number",
    float: "a finite number",
    str: "a name",
    bool: "true or false",
    type(None): "null",
}


def named(hint: Any) -> str:
    """An annotation in words, for messages and help."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return " and ".join(named_range(arguments[0], each) for each in ranges_of(hint)) or named(
            arguments[0]
        )
    if origin is typing.Literal:
        return " or ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        choices = [one for one in arguments if one is not int or float not in arguments]
        choices.sort(key=lambda one: one is not types.NoneType)  # null first
        return " or ".join(map(named, choices))
    if arguments and origin in (list, tuple):
        return f"a list in brackets, each {named(arguments[0])}"
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def named_range(kind: Any, allowed: Range) -> str:
    return f"a whole number, {allowed.words}" if kind is int else allowed.words
