"""The ends of nested mappings and lists, as YAML and JSON are read to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Path = tuple[str, ...]


def leaves(node: Any, depth: int | None = None, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every end, with the keys on the way to it; in a list these are positions. What is empty is
    an end, too. depth: how many keys to follow, by default all."""
    nested = isinstance(node, (Mapping, list)) and node
    if depth == 0 or not nested:
        yield path, node
        return
    items: Iterable[tuple[Any, Any]] = enumerate(node)
    if isinstance(node, Mapping):
        items = node.items()
    deeper = None if depth is None else depth - 1
    for key, value in items:
        yield from leaves(value, deeper, (*path, str(key)))
