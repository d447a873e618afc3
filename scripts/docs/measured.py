"""The rows of the tables in outputs/tables that belong to a method."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from main import ROOT

TABLES = ROOT / "conf/table"
FILLED = ROOT / "outputs/tables"
OURS, PUBLISHED, DIFFERENCE = "ours", "published", "difference"


class Rows(NamedTuple):
    """Rows of one table, as cells. title: of the file; part: the heading that the table is
    below."""

    table: str
    title: str
    part: str
    header: list[str]
    rows: list[list[str]]


def of_method(method: str) -> list[Rows]:
    """What every filled table has measured of a method, and what its paper publishes."""
    return list(_of_methods().get(method, ()))


@lru_cache
def _of_methods() -> dict[str, list[Rows]]:
    found: dict[str, list[Rows]] = {}
    for path in sorted(FILLED.glob("*.md")):
        table = path.stem.partition("--")[0]
        if not (TABLES / f"{table}.yaml").exists():
            continue
        methods = labels(table)
        for title, part, header, body in grids(path):
            for label, rows in groups(body):
                if (method := methods.get(label)) and any(map(has_numbers, rows)):
                    known = found.setdefault(method, [])
                    add(known, Rows(table, title, part, header, rows))
    return found


def add(known: list[Rows], new: Rows) -> None:
    """Rows of the same table and part stand below one header."""
    if known and known[-1][:3] == new[:3]:
        known[-1].rows.extend(new.rows)
    else:
        known.append(new)


def labels(table: str) -> dict[str, str]:
    """The method that a row's label stands for, by the table's configuration."""
    keys = yaml.safe_load((TABLES / f"{table}.yaml").read_text())
    parent = keys.get("extends")
    inherited = labels(parent) if parent else {}
    return inherited | dict(_rows_of(keys))


def _rows_of(node: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        named = re.search(r"(?:^|\s)method=(\w+)", value) if isinstance(value, str) else None
        if named:
            yield str(key), named[1]
        yield from _rows_of(value)


def grids(path: Path) -> Iterator[tuple[str, str, list[str], list[list[str]]]]:
    """Every table of a Markdown file: title of the file, heading, header and rows."""
    title = part = ""
    rows: list[list[str]] = []
    for line in [*path.read_text().splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
            continue
        if rows:
            yield title, part, rows[0], rows[2:]
            rows = []
        if line.startswith("# "):
            title = line[2:]
        elif line.startswith("## "):
            part = line[3:]


def groups(body: list[list[str]]) -> Iterator[tuple[str, list[list[str]]]]:
    """The rows of each label. Rows without one continue the row above: what is published."""
    label, rows = "", list[list[str]]()
    for row in body:
        if row[0] and rows:
            yield label, rows
            rows = []
        label = row[0] or label
        rows.append(row)
    if rows:
        yield label, rows


def has_numbers(row: list[str]) -> bool:
    return any(re.match(r"(\*\*)?[\d−-]+[.,\d]*", cell) for cell in row[1:])


def unbroken(text: str) -> str:
    """Without line breaks within a mean and its deviation, or within an interval."""
    text = text.replace(" ± ", "\u00a0±\u00a0")
    return re.sub(r"\[([-\d.]+), ([-\d.]+)\]", "[\\1,\u00a0\\2]", text)
