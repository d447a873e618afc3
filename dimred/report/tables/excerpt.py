"""Some cells of a table (--only): to run them alone, and to show them as they are in the whole."""

from __future__ import annotations

import re
from dataclasses import replace

from dimred.errors import UserError
from dimred.report.compose import Json
from dimred.report.tables.fill import shown_once
from dimred.report.tables.published import Cell, Part, Table


def only(table: Table, pattern: str) -> Table:
    """The cells in whose name, "part: row / column", the regular expression is found. UserError if
    there are none."""
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"--only {pattern} is no regular expression ({error}). Put a \\ before signs that are meant "
            "as they are"
        ) from None
    parts = [
        replace(part, cells=cells)
        for part in table.parts
        if (cells := tuple(cell for cell in part.cells if wanted.search(name_of(part, cell))))
    ]
    if not parts:
        raise UserError(
            f"no cell of {table.name} is named like {pattern!r}. A name is PART: ROW / COLUMN, such as "
            + "; ".join(name_of(part, cell) for part in table.parts for cell in part.cells[:2])
        )
    return replace(table, parts=tuple(parts), only=pattern)


def name_of(part: Part, cell: Cell) -> str:
    return f"{part.name}: {' / '.join((*cell.row, *cell.column))}"


def excerpt(document: Json, whole: Table, some: Table) -> Json:
    """Of the filled whole what is wanted: the best of a column and what is not counted are those of
    the whole."""
    wanted = {part.name: part for part in some.parts}
    parts = [
        of_part(filled, part, wanted[part.name])
        for filled, part in zip(document["parts"], whole.parts, strict=True)
        if part.name in wanted
    ]
    return document | {"title": some.heading, "only": some.only, "parts": parts}


def of_part(filled: Json, whole: Part, some: Part) -> Json:
    """Cells are where they are in the whole; the claims are those about two cells that are both
    wanted."""
    wanted = shown_once(some).keys()
    there = {(cell.row, cell.column) for what, cell in shown_once(whole).items() if what in wanted}
    named = there | {(cell.row, cell.column) for cell in some.cells}
    return filled | {
        "cells": [cell for cell in filled["cells"] if (cell["row"], cell["column"]) in there],
        "claims": [
            claim for claim in filled["claims"] if {claim["cell"], claim["against"]} <= named
        ],
    }
