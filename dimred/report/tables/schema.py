"""The schema of a table's file: its keys, and the values that they may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dimred.errors import UserError, nearest, require, see
from dimred.report.measures import MEASURES, is_number

#: a check of a value, and what the value must be in words
Allowed = tuple[Callable[[Any], bool], str]


def list_of(item: Callable[[Any], bool], least: int = 0) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(item, value))


def mapping_of(item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(item, value.values()))


def kind(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types)


TEXT: Allowed = kind(str), "text"
YES_OR_NO: Allowed = kind(bool), "true or false"
LABELS: Allowed = list_of(kind(str, int, float)), "a list of labels: [SNIP, dense]"
AXES: Allowed = (
    mapping_of(mapping_of(kind(str, type(None)))),
    "axes of labels with their overrides: {method: {SNIP: method=snip}}",
)
MEASURE: Allowed = (
    lambda value: isinstance(value, str) and value in MEASURES,
    f"one of {', '.join(MEASURES)}",
)

PART: dict[str, Allowed] = {
    "settings": (kind(str), "overrides as text: dataset=mnist recipe.epochs=20"),
    "seeds": (
        list_of(lambda seed: type(seed) is int and seed >= 0, 1),
        "a list of whole numbers: [0, 1, 2]",
    ),
    "measures": (list_of(MEASURE[0], 1), f"a list of some of {', '.join(MEASURES)}"),
    "rows": AXES,
    "columns": AXES,
    "baselines": LABELS,
    "published": (list_of(kind(dict)), "a list of sources, each with its values"),
    "claims": (list_of(kind(dict)), "a list of claims, each with its cell"),
}
TABLE: dict[str, Allowed] = {
    "title": TEXT,
    "source": TEXT,
    "notes": (list_of(kind(str)), "a list of text"),
    "extends": TEXT,
    "parts": (mapping_of(kind(dict, type(None))), "parts by their name"),
    **PART,
}
SOURCE: dict[str, Allowed] = {
    "source": TEXT,
    "values": (kind(dict), "lists of numbers by the label of their row"),
    "measure": MEASURE,
    "tolerance": (lambda value: is_number(value) and value >= 0, "a number, 0 or more"),
    "recalled": YES_OR_NO,
    "best_test_epoch": YES_OR_NO,
    "note": TEXT,
}
CLAIM: dict[str, Allowed] = {
    "says": TEXT,
    "cell": LABELS,
    "against": LABELS,
    "measure": MEASURE,
    "ratio_at_least": (is_number, "a number"),
    "difference_at_least": (is_number, "a number"),
}


def checked(
    where: str, given: Any, keys: Mapping[str, Allowed], needed: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The given values without nulls, which count as absent. UserError for a key that is unknown or
    missing, or has a value that is not allowed."""
    page = see("tables.md#a-table-of-your-own")
    require(isinstance(given, dict), where, given, f"keys with values. {page}")
    for key, value in given.items():
        if key not in keys:
            raise UserError(f"{where}: unknown key {key!r}. {nearest(str(key), keys)}")
        holds, what = keys[key]
        if value is not None and not holds(value):
            raise UserError(f"{where}: {key}: {value!r} is not allowed. It must be {what}")
    for key in needed:
        if given.get(key) is None:
            raise UserError(f"{where} has no {key}. It must be {keys[key][1]}")
    return {key: value for key, value in given.items() if value is not None}
