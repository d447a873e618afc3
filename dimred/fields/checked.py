"""Dataclasses whose values are checked against their annotations."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

from dimred.fields.values import typed


class Checked:
    """A base class of dataclasses: UserError if a value does not fit the annotation of its field.

    Subclasses check conditions on several fields in their own `__post_init__`, after
    `super().__post_init__()`."""

    group: ClassVar[str] = "method"  # of the configuration; messages name group.field

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, hint in hints_of_fields(kind).items():
            typed(getattr(self, name), hint, f"{self.group}.{name}")


@lru_cache
def hints_of_fields(kind: Any) -> Mapping[str, Any]:
    """The annotations of a dataclass's fields, with their ranges."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
