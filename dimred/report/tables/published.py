"""Tables as data: conf/table/NAME.yaml says which runs make the cells and what was published for
them.

title, source, notes        what the reader is told
settings                    overrides of every cell, as typed: dataset=mnist recipe.epochs=20
seeds, measures             [0, 1, 2], [test_accuracy]
rows, columns               {axis: {label: overrides}}; several axes: all combinations. A row that is null has
                            published numbers only
baselines                   labels of rows that do not compete for the bold print
published                   a list of {source, values: {row: [93.4±0.2, ...]}, tolerance, recalled, measure,
                            best_test_epoch, note}; the values of a row in the order of the columns
claims                      a list of {says, cell: [row, column], against: [row], ratio_at_least: 0.99}
parts                       {name: any of settings ... claims}; what a part does not say it has from the top
extends                     another table, whose keys hold where this one has none of its own
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dimred.errors import UserError, nearest
from dimred.report.compose import (
    AS_PUBLISHED,
    Change,
    Json,
    Overrides,
    Verbatim,
    composed,
    read_yaml,
    size_of,
    split,
)
from dimred.report.runs import key
from dimred.report.tables import schema as words
from dimred.runs.config.files import NOT_DESCRIPTIVE, conf, names

Labels = tuple[str, ...]  # one of every axis


@dataclass(frozen=True)
class Number:
    """A published one, in the unit that is printed, and as it is printed."""

    value: float
    std: float | None
    text: str


@dataclass(frozen=True)
class Source:
    """Published numbers: where they stand, how far ours may lie from them, whether they were
    recalled from memory."""

    source: str
    values: dict[tuple[Labels, Labels], Number]
    measure: str
    tolerance: float
    recalled: bool = False
    best_test_epoch: bool = False  # selected on the test set, as ours never is
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """What a paper claims in words: of the mean of a cell, compared with that of another one."""

    says: str
    cell: tuple[Labels, Labels]
    against: tuple[Labels, Labels]
    measure: str
    ratio_at_least: float | None = None
    difference_at_least: float | None = None


@dataclass(frozen=True)
class Cell:
    """One place of a table. `description` is that of its runs but for the seed; without, there are
    none to be had."""

    row: Labels
    column: Labels
    overrides: Overrides
    description: Json | None

    @property
    def key(self) -> str | None:
        return None if self.description is None else key(self.description)


@dataclass(frozen=True)
class Part:
    name: str
    row_axes: Labels
    column_axes: Labels
    cells: tuple[Cell, ...]  # row by row
    seeds: tuple[int, ...]
    measures: tuple[str, ...]
    baselines: tuple[str, ...]
    published: tuple[Source, ...]
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Table:
    name: str
    title: str
    source: str
    notes: tuple[str, ...]
    parts: tuple[Part, ...]
    change: Change
    only: str = ""  # an excerpt: the cells that are named like this

    @property
    def heading(self) -> str:
        said = [
            *([f"NOT the published settings: {self.change}"] if str(self.change) else []),
            *([f"an excerpt: cells named like {self.only!r}"] if self.only else []),
        ]
        return f"{self.title} ({'; '.join(said)})" if said else self.title


# -- reading --------------------
def read_table(
    name: str, change: Change = AS_PUBLISHED, seeds: Iterable[int] | None = None
) -> Table:
    """A table by its name in conf/table, or by the path of a YAML file. UserError for whatever is
    wrong with it."""
    if name not in (shipped := names("table")) and Path(name).stem in shipped:
        raise UserError(
            f"{name} has the name of a table that is shipped, whose output it would overwrite. Rename it"
        )
    try:
        raw = raw_table(name)
        words.check(
            f"table {name}",
            raw,
            words.TABLE,
            ("title", *(() if raw.get("parts") else ("rows", "seeds"))),
        )
        owns = {part: own or {} for part, own in (raw.get("parts") or {"": {}}).items()}
        for part, own in owns.items():
            change.check(owners(part, raw | own, own.get("settings")))
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
            f"table {name}: {type(error).__name__} {error}. What it may say: docs/tables.md"
        ) from error


def raw_table(name: str, below: Labels = ()) -> Json:
    """What its file says, and the files it extends; `below`: those that extend it."""
    if name in below:
        raise UserError(
            f"table {name} extends itself: {' -> '.join((*below, name))}. Take one of these `extends` away"
        )
    path = (
        Path(name).expanduser()
        if name.endswith((".yaml", ".yml"))
        else conf() / "table" / f"{name}.yaml"
    )
    if not path.exists():
        raise UserError(
            f"unknown table {name!r}. {nearest(name, names('table'))} A table of your own: the path of its "
            ".yaml"
        )
    raw = read_yaml(path, Verbatim)
    words.check(f"table {name}", raw, words.TABLE)
    for part, own in (raw.get("parts") or {}).items():
        words.check(f"table {name}, part {part}", own or {}, words.PART)
    return raw_table(raw["extends"], (*below, name)) | raw if "extends" in raw else raw


def owners(part: str, raw: Json, own: str | None) -> dict[str, str]:
    """The keys that tell cells apart, and what sets them."""
    texts = [
        (f"the {kind}", text)
        for kind in ("rows", "columns")
        for axis in (raw.get(kind) or {}).values()
        for text in axis.values()
    ]
    return {
        key: what
        for what, text in [*texts, (f"the settings of part {part!r}", own)]
        if text
        for key in split(text.split())
    }


def check_baselines(parts: Iterable[Part]) -> None:
    """UserError for one that is no row, here or in another part (which may have the baselines of
    all)."""
    labels = {label for part in parts for cell in part.cells for label in cell.row}
    for name in {name for part in parts for name in part.baselines} - labels:
        raise UserError(f"the baseline {name!r} is no row. {nearest(name, labels)}")


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
                    f"{word}={overrides[word]} is not allowed in a table: it tells no cells apart. Seeds: "
                    "seeds: [0, 1]; where and how to compute: on the command line"
                )
            description = composed(overrides)
            size_of(description["recipe"])
            del description["seed"]
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
                f"a number or a claim is for {' / '.join(itertools.chain(*place))}, which is no cell"
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
    """Every combination of the axes' labels, with its overrides; None where one of them has
    none."""
    found = []
    for entries in itertools.product(*(axis.items() for axis in axes.values())):
        typed = [text for _, text in entries]
        merged = None if None in typed else split(" ".join(filter(None, typed)).split())
        found.append((tuple(str(label) for label, _ in entries), merged))
    return found


def read_source(
    raw: Json, depth: tuple[int, int], measures: Labels, columns: list[Labels]
) -> Source:
    """The values of a row are a list in the order of the columns; null where there is none."""
    raw = words.check("published", raw, words.SOURCE, ("source", "values"))
    values: dict[tuple[Labels, Labels], Number] = {}
    for row, line in leaves(raw["values"], depth[0]):
        if not isinstance(line, list):
            raise UserError(
                f"{raw['source']} says {line!r} for {' / '.join(row)}. It must be a list of numbers"
            )
        if len(line) > len(columns):
            raise UserError(
                f"{raw['source']} has more numbers for {' / '.join(row)} than there are columns"
            )
        values |= {
            (row, column): number(leaf)
            for column, leaf in zip(columns, line, strict=False)
            if leaf is not None
        }
    source = Source(**{"measure": measures[0], "tolerance": 0.5, **raw, "values": values})
    if source.measure not in measures:
        raise UserError(
            f"{source.source} has numbers of {source.measure}, which is none of the table's measures"
        )
    return source


def leaves(node: Any, depth: int, path: Labels = ()) -> list[tuple[Labels, Any]]:
    if depth == 0:
        return [(path, node)]
    return [
        leaf
        for label, below in node.items()
        for leaf in leaves(below, depth - 1, (*path, str(label)))
    ]


def place(path: Iterable[str], depth: tuple[int, int]) -> tuple[Labels, Labels]:
    path = tuple(map(str, path))
    return path[: depth[0]], path[depth[0] :]


def number(leaf: Any) -> Number:
    """93.40, or "93.4±0.2"."""
    value, _, std = str(leaf).partition("±")
    return Number(float(value), float(std) if std else None, str(leaf).replace("±", " ± "))


def read_claim(raw: Json, depth: tuple[int, int], measure: str, cells: list[Cell]) -> Claim:
    def whole(path: list[str]) -> tuple[Labels, Labels]:  # a row without a column: its first one
        row, column = place(path, depth)
        return row, column or next((cell.column for cell in cells if cell.row == row), ())

    raw = words.check("claims", raw, words.CLAIM, ("says", "cell", "against"))
    if len({"ratio_at_least", "difference_at_least"} & raw.keys()) != 1:
        raise UserError(
            f"the claim {raw['says']!r} must say ratio_at_least or difference_at_least, one of them"
        )
    return Claim(
        **{"measure": measure, **raw, "cell": whole(raw["cell"]), "against": whole(raw["against"])}
    )
