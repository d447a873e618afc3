"""An extension of griffe: lines `name: what it is` of docstrings become a list."""

from __future__ import annotations

import re
from typing import Any

import griffe

NAMES = re.compile(r"(\w+(?:, \w+)*): ")


class Parameters(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = with_lists(obj.docstring.value)


def with_lists(docstring: str) -> str:
    return "\n\n".join(as_list(paragraph) for paragraph in docstring.split("\n\n"))


def as_list(paragraph: str) -> str:
    """A paragraph that begins with `name: `, as a list with an item for each such line."""
    if not NAMES.match(paragraph):
        return paragraph
    items: list[str] = []
    for line in paragraph.splitlines():
        if named := NAMES.match(line):
            names = ", ".join(f"`{name}`" for name in named[1].split(", "))
            items.append(f"- {names}: {line[named.end() :]}")
        else:
            items.append(f"    {line.strip()}")
    return "\n".join(items)
