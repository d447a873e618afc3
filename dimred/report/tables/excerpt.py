"""An excerpt of a table (--only): some of its cells, shown as they are in the whole table."""

from __future__ import annotations

import re
from dataclasses import replace

from dimred.errors import UserError
from dimred.report.compose import Json
from dimred.report.tables.fill import shown_once
from dimred.report.tables.table import Cell, Part, Table


def only(table: Table, pattern: str) -> Table:
    """The cells whose name, "part: row / column", matches the pattern. UserError if none does."""
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"--only {pattern} is not a regular expression ({error}). Escape special characters "
            "with \\"
        ) from None
    parts, examples = [], []
    for part in table.parts:
        cells = tuple(cell for cell in part.cells if wanted.search(name_of(part, cell)))
        if cells:
            parts.append(replace(part, cells=cells))
        examples += [name_of(part, cell) for cell in part.cells[:2]]
    if not parts:
        form = "PART: ROW / COLUMN" if table.parts[0].name else "ROW / COLUMN"
        raise UserError(
            f"no cell of {table.name} is named like {pattern!r}. A name is {form}, "
            f"such as {'; '.join(examples)}"
        )
    return replace(table, parts=tuple(parts), only=pattern)


def name_of(part: Part, cell: Cell) -> str:
    """A table without parts is one part without a name."""
    name = " / ".join((*cell.row, *cell.column))
    return f"{part.name}: {name}" if part.name else name


def excerpt(document: Json, whole: Table, some: Table) -> Json:
    """The filled table without the cells that are not wanted. Bold print and remarks are those of
    the whole."""
    wanted = {part.name: part for part in some.parts}
    parts = []
    for filled, part in zip(document["parts"], whole.parts, strict=True):
        if part.name in wanted:
            parts.append(of_part(filled, part, wanted[part.name]))
    return document | {"title": some.heading, "only": some.only, "parts": parts}


def of_part(filled: Json, whole: Part, some: Part) -> Json:
    """Cells stay in their places. A claim is kept if both of its cells are wanted."""
    wanted = shown_once(some).keys()
    there = {(cell.row, cell.column) for what, cell in shown_once(whole).items() if what in wanted}
    named = there | {(cell.row, cell.column) for cell in some.cells}
    cells = [cell for cell in filled["cells"] if (cell["row"], cell["column"]) in there]
    claims = [claim for claim in filled["claims"] if {claim["cell"], claim["against"]} <= named]
    return filled | {"cells": cells, "claims": claims}
