"""Read published tables: conf/table/NAME.yaml has the runs of each cell and the published numbers.
beside_published.py sets these beside ours.

title, source, notes   texts for the reader
settings               overrides of every cell, as typed: dataset=mnist recipe.epochs=20
seeds, measures        [0, 1, 2], [test_accuracy]
rows, columns          {axis: {label: overrides}}; of several axes, all combinations. A row that is
                       null has published numbers only
baselines              labels of rows that do not compete for bold print
published              a list of {source, values: {row: [93.4±0.2, ...]}, tolerance, recalled,
                       measure, best_test_epoch, note}; values are in the order of the columns
claims                 a list of {says, cell: [row, column], against: [row], ratio_at_least: 0.99}
parts                  {name: any of settings ... claims}; a part inherits the others from the top
extends                another table, from which this one inherits
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dimred.errors import UserError, nearest, see
from dimred.report.compose import (
    Json,
    Overrides,
    Verbatim,
    composed,
    read_yaml,
    size_of,
    split,
)
from dimred.report.tables import schema
from dimred.report.tables.change import AS_PUBLISHED, Change
from dimred.report.tables.table import Cell, Claim, Labels, Number, Part, Source, Table
from dimred.runs.config.files import NOT_DESCRIPTIVE, conf, names
from dimred.runs.config.leaves import leaves


def read_table(
    name: str, change: Change = AS_PUBLISHED, seeds: Iterable[int] | None = None
) -> Table:
    """Read a table by its name in conf/table, or by the path of a YAML file. UserError for any
    mistake in the file."""
    shipped = names("table")
    if name not in shipped and Path(name).stem in shipped:
        raise UserError(
            f"{name} has the name of one of dimred's tables, and would overwrite its output. "
            "Rename it"
        )
    try:
        raw = raw_table(name)
        needed = ("title",) if raw.get("parts") else ("title", "rows", "seeds")
        schema.checked(f"table {name}", raw, schema.TABLE, needed)
        # a table without parts is one part without a name
        owns = {part: own or {} for part, own in (raw.get("parts") or {"": {}}).items()}
        for part, own in owns.items():
            change.require_allowed(owners(part, raw | own, own.get("settings")))
        parts = tuple(read_part(part, _merged(raw, own), change) for part, own in owns.items())
        check_baselines(parts)
        if seeds is not None and any({*seeds} != {*part.seeds} for part in parts):
            change = replace(change, seeds=tuple(seeds))
            parts = tuple(replace(part, seeds=change.seeds) for part in parts)
        return Table(
            Path(name).stem,
            raw["title"],
            raw.get("source") or "",
            tuple(raw.get("notes") or ()),
            parts,
            change,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"table {name}: {type(error).__name__} {error}. {see('tables.md#a-table-of-your-own')}"
        ) from error


def raw_table(name: str, below: Labels = ()) -> Json:
    """The content of a table's file, merged with the files that it extends. `below`: the files that
    extend it."""
    if name in below:
        raise UserError(
            f"table {name} extends itself: {' -> '.join((*below, name))}. Remove one of these "
            "`extends`"
        )
    path = conf() / "table" / f"{name}.yaml"
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        if not path.exists():
            raise UserError(f"There is no file {path}. Correct the path, or choose a table by name")
    if not path.exists():
        raise UserError(
            f"unknown table {name!r}. {nearest(name, names('table'))} For a table of your own, "
            "give the path of its .yaml"
        )
    raw = read_yaml(path, Verbatim)
    schema.checked(f"table {name}", raw, schema.TABLE)
    for part, own in (raw.get("parts") or {}).items():
        schema.checked(f"table {name}, part {part}", own or {}, schema.PART)
    return raw_table(raw["extends"], (*below, name)) | raw if "extends" in raw else raw


def owners(part: str, raw: Json, own: str | None) -> dict[str, str]:
    """The keys that tell cells apart, each with what sets it: "the rows"."""
    texts = {"the rows": [], "the columns": [], f"the settings of part {part!r}": [own or ""]}
    for kind in ("rows", "columns"):
        for axis in (raw.get(kind) or {}).values():
            texts[f"the {kind}"] += [text or "" for text in axis.values()]
    found: dict[str, str] = {}
    for owner, settings in texts.items():
        for name in split(" ".join(settings).split()):
            found[name] = owner
    return found


def check_baselines(parts: Iterable[Part]) -> None:
    """UserError for a baseline that is not a row of any part."""
    labels: set[str] = set()
    baselines: set[str] = set()
    for part in parts:
        labels = labels.union(*(cell.row for cell in part.cells))
        baselines |= set(part.baselines)
    for name in baselines - labels:
        raise UserError(f"the baseline {name!r} is not a row. {nearest(name, labels)}")


def _merged(top: Json, own: Json) -> Json:
    return top | own | {"settings": f"{top.get('settings', '')} {own.get('settings', '')}"}


def read_part(name: str, raw: Json, change: Change) -> Part:
    rows, columns = raw["rows"], raw.get("columns") or {}
    depth = len(rows), len(columns)
    measures = tuple(raw.get("measures") or ("test_accuracy",))
    cells = []
    for row, typed in product(rows):
        for column, more in product(columns):
            if typed is None or more is None:
                cells.append(Cell(row, column, {}, None))
                continue
            overrides = change.applied(split(raw["settings"].split()) | typed | more)
            for word in overrides.keys() & {"seed", *NOT_DESCRIPTIVE} - {"sparsity", "allocation"}:
                raise UserError(
                    f"{word}={overrides[word]} is not allowed in a table: it does not tell cells "
                    "apart. Write seeds as seeds: [0, 1]; give where and how to compute on the "
                    "command line"
                )
            description = composed(overrides)
            size_of(description["recipe"])
            del description["seed"]
            # a run would warn that its method does not use it
            for unused in {"sparsity", "allocation"} - set(description["method"]):
                overrides.pop(unused, None)
            cells.append(Cell(row, column, overrides, description))
    where = {(cell.row, cell.column) for cell in cells}
    labels = [column for column, _ in product(columns)]
    sources = tuple(
        read_source(each, depth, measures, labels) for each in raw.get("published") or ()
    )
    claims = tuple(read_claim(each, depth, measures[0], cells) for each in raw.get("claims") or ())
    for place in itertools.chain(
        *(s.values for s in sources), *((c.cell, c.against) for c in claims)
    ):
        if place not in where:
            raise UserError(
                f"a number or a claim is for {' / '.join(itertools.chain(*place))}, which is not a "
                "cell"
            )
    return Part(
        name,
        tuple(rows),
        tuple(columns),
        tuple(cells),
        tuple(raw["seeds"]),
        measures,
        tuple(map(str, raw.get("baselines") or ())),
        sources,
        claims,
    )


def product(axes: Mapping[str, Mapping[str, str | None]]) -> list[tuple[Labels, Overrides | None]]:
    """Every combination of the axes' labels, with its overrides; None if a label has none."""
    found = []
    for entries in itertools.product(*(axis.items() for axis in axes.values())):
        typed = [text for _, text in entries]
        merged = None if None in typed else split(" ".join(filter(None, typed)).split())
        found.append((tuple(str(label) for label, _ in entries), merged))
    return found


def read_source(
    raw: Json, depth: tuple[int, int], measures: Labels, columns: list[Labels]
) -> Source:
    """The values of a row are a list in the order of the columns, with null for a missing one."""
    raw = schema.checked("published", raw, schema.SOURCE, ("source", "values"))
    values: dict[tuple[Labels, Labels], Number] = {}
    # the keys of a row are its labels on each axis; a line may end early
    for row, line in leaves(raw["values"], depth[0]):
        if not isinstance(line, list):
            raise UserError(
                f"{raw['source']} has {line!r} for {' / '.join(row)}. It must be a list of numbers"
            )
        if len(line) > len(columns):
            raise UserError(
                f"{raw['source']} has more numbers for {' / '.join(row)} than there are columns"
            )
        for column, leaf in zip(columns, line, strict=False):
            if leaf is not None:
                values[row, column] = read_number(leaf)
    source = Source(**{"measure": measures[0], "tolerance": 0.5, **raw, "values": values})
    if source.measure not in measures:
        raise UserError(
            f"{source.source} has numbers of {source.measure}, which is not a measure of the table"
        )
    return source


def place(path: Iterable[str], depth: tuple[int, int]) -> tuple[Labels, Labels]:
    path = tuple(map(str, path))
    return path[: depth[0]], path[depth[0] :]


def read_number(leaf: Any) -> Number:
    """93.40, or "93.4±0.2"."""
    value, _, std = str(leaf).partition("±")
    return Number(float(value), float(std) if std else None, str(leaf).replace("±", " ± "))


def read_claim(raw: Json, depth: tuple[int, int], measure: str, cells: list[Cell]) -> Claim:
    def whole(path: list[str]) -> tuple[Labels, Labels]:
        # a row without a column means its first one
        row, column = place(path, depth)
        return row, column or next((cell.column for cell in cells if cell.row == row), ())

    raw = schema.checked("claims", raw, schema.CLAIM, ("says", "cell", "against"))
    if len({"ratio_at_least", "difference_at_least"} & raw.keys()) != 1:
        raise UserError(
            f"the claim {raw['says']!r} must have either ratio_at_least or difference_at_least"
        )
    return Claim(
        **{"measure": measure, **raw, "cell": whole(raw["cell"]), "against": whole(raw["against"])}
    )
