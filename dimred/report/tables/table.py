"""A published table: parts, cells, published numbers with their sources, and claims."""

from __future__ import annotations

from dataclasses import dataclass

from dimred.report.compose import Json, Overrides
from dimred.report.runs import key
from dimred.report.tables.change import Change

Labels = tuple[str, ...]  # one of every axis


@dataclass(frozen=True)
class Number:
    """A published number, in the unit that is printed, and its text."""

    value: float
    std: float | None
    text: str


@dataclass(frozen=True)
class Source:
    """Published numbers: their source, the tolerance for ours, and whether they were recalled from
    memory."""

    source: str
    values: dict[tuple[Labels, Labels], Number]
    measure: str
    tolerance: float
    recalled: bool = False
    best_test_epoch: bool = False  # selected on the test set; ours never is
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim that a paper makes in words, as a comparison of the means of two cells."""

    says: str
    cell: tuple[Labels, Labels]
    against: tuple[Labels, Labels]
    measure: str
    ratio_at_least: float | None = None
    difference_at_least: float | None = None


@dataclass(frozen=True)
class Cell:
    """A place in a table. `description` is that of its runs, without the seed; None if it has
    published numbers only."""

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
    only: str = ""  # the pattern of --only, if this is an excerpt

    @property
    def heading(self) -> str:
        notes = []
        if str(self.change):
            notes.append(f"NOT the published settings: {self.change}")
        if self.only:
            notes.append(f"an excerpt: cells named like {self.only!r}")
        return f"{self.title} ({'; '.join(notes)})" if notes else self.title
