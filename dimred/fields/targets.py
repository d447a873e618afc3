"""The classes and functions that a configuration names by `_target_`."""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
import typing
from collections.abc import Mapping
from typing import Any

from dimred.errors import UserError

Parameters = Mapping[str, inspect.Parameter]


def resolve(name: str, group: str) -> tuple[Any, Parameters]:
    """The class or function at package.module.NAME, and the parameters that it takes."""
    try:
        target = pkgutil.resolve_name(":".join(name.rsplit(".", 1)))
        return target, inspect.signature(target).parameters
    except Exception as error:
        raise UserError(
            f"{group}._target_={name} cannot be imported ({error}). If it is your "
            "own, put its folder on PYTHONPATH"
        ) from error


def hints_of(target: Any) -> Mapping[str, Any]:
    """The annotations of a target's parameters, with ranges. Empty if they cannot be resolved."""
    plain_class = inspect.isclass(target) and not dataclasses.is_dataclass(target)
    try:
        return typing.get_type_hints(
            target.__init__ if plain_class else target, include_extras=True
        )
    except Exception:  # a user's code may annotate with anything
        return {}
