"""A page for every method, from its docstring, its configuration and the measured tables."""

from __future__ import annotations

import re
import textwrap
from functools import lru_cache
from itertools import groupby
from typing import Any

import main
import measured
from equations import typeset
from families import APART, FAMILIES, WHEN
from main import ROOT

from dimred.runs.config.docstrings import find
from dimred.runs.config.fields import fields, find_file
from dimred.runs.config.files import read

Row = dict[str, str]
FOLDER = "method"
PICTURES = ROOT / "docs/pictures/methods"

#: the measures of a survey that a method's page shows: a table has more
SURVEYED = (
    "test accuracy %",
    "dim",
    "density",
    "storage",
    "of dense training",
    "of dense inference",
)


@lru_cache
def methods() -> tuple[Row, ...]:
    """The methods, sorted by family and name."""
    rows = [main.entry("method", path) for path in (ROOT / "conf/method").glob("*.yaml")]
    return tuple(sorted(rows, key=lambda row: (FAMILIES.index(row["family"]), row["name"])))


def by_family() -> list[tuple[str, list[Row]]]:
    return [(name, list(rows)) for name, rows in groupby(methods(), lambda row: row["family"])]


def navigation() -> list[Any]:
    families = [{name: [address(row) for row in rows]} for name, rows in by_family()]
    return [f"{FOLDER}/index.md", {"All on one page": "methods.md"}, *families]


def address(row: Row) -> str:
    return f"{FOLDER}/{row['name']}.md"


def pages() -> dict[str, str]:
    found = {address(row): page(row) for row in methods()}
    return {f"{FOLDER}/index.md": overview(), **found}


# -- the overview --------------------
def overview() -> str:
    parts = [f"# Methods\n\n{OVERVIEW.format(count=len(methods()))}"]
    for family, rows in by_family():
        lines = "\n".join(
            f"| [{row['name']}]({row['name']}.md) | {escaped(row['summary'])} |" for row in rows
        )
        parts.append(
            f"## {family}\n\n{WHEN[family]}\n\n| method | what it does |\n|---|---|\n{lines}"
        )
    return "\n\n".join([*parts, COMBINED]) + "\n"


COMBINED = """\
## Bases and allocations

A [basis](../methods.md#bases) combines with any method, which then prunes coefficients instead of
weights. An [allocation](../methods.md#allocations) distributes a sparsity over the layers."""

OVERVIEW = """\
dimred has {count} methods in families. `dimred train method=NAME sparsity=0.95` trains one, and
`dimred methods NAME` prints what its page says.
The [survey](../measured/survey_digits.md) trains all of them by one recipe."""


# -- a page --------------------
def page(row: Row) -> str:
    parts = [
        f"# {row['name']}\n\n{row['summary']}\n\n*{escaped(row['source'])}*",
        f"```sh\n{command(row['name'])}\n```",
        f"## Equation\n\n{typeset(row['equation'])}",
        notes(row["name"]),
        picture(row["name"]),
        f"## When to use it\n\n{when(row['name'], row['family'])}",
        cost(row),
        f"## Fields\n\n{field_table(row['name'])}",
        numbers(row["name"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def when(name: str, family: str) -> str:
    general = f"Family: [{family}](index.md#{anchor(family)}). {WHEN[family]}"
    return f"{APART[name]}\n\n{general}" if name in APART else general


def command(name: str) -> str:
    keys = read("method", name)
    sparsity = " sparsity=0.95" if "sparsity" in keys else ""
    mask = " method.mask=outputs/runs/..." if keys.get("mask") == "???" else ""
    return f"dimred train method={name}{sparsity}{mask}"


def notes(name: str) -> str:
    """The paragraphs of the docstring between the equation and the facts."""
    _, docstring = find(read("method", name)["_target_"])
    paragraphs = docstring.split("\n\n")[1:-1]
    kept = [text for text in paragraphs if not text.startswith(("    ", "Trains: "))]
    return "\n\n".join(escaped(textwrap.dedent(text)) for text in kept)


def picture(name: str) -> str:
    if not (PICTURES / f"{name}.svg").exists():
        return ""
    image = f"![{name}: weights through training](../pictures/methods/{name}.svg)"
    return f"## What it trains\n\n{image}\n\n{CAPTION}"


CAPTION = """\
Weights of three layers in a real run, `sparsity=0.8` where the method has one, on scikit-learn's
digits for 10 epochs (LeNet-300-100, or ResNet-20 where the method needs norms). A row is one of 40
weights drawn at random from the layer, a column a step; the rows that are trained longest come
first."""


def cost(row: Row) -> str:
    facts = {
        "Trains": row["trains"],
        "Stores, beyond the trained values": row["stores"],
        "Needs while training, of dense gradients and weights": row["needs"],
    }
    lines = "\n".join(f"- **{name}:** {escaped(text)}" for name, text in facts.items())
    return f"## Cost\n\n{lines}"


def field_table(name: str) -> str:
    rows = fields("method", find_file("method", name)).fields
    lines = [
        f"| `method.{field.name}` | {default(field.default)} | {escaped(field.about())} |"
        for field in rows
    ]
    return "\n".join(["| field | default | meaning, and allowed values |", "|---|---|---|", *lines])


def default(text: str) -> str:
    return text if text.startswith("that of") or not text else f"`{text}`"


def numbers(name: str) -> str:
    """Published and measured numbers, as far as tables have them."""
    found = measured.of_method(name)
    if not found:
        return f"## Numbers\n\n{NOT_MEASURED}"
    parts = ["## Numbers"]
    for _, tables in groupby(found, lambda rows: rows.table):
        blocks = list(tables)
        parts += heading(blocks[0])
        for rows in blocks:
            part = f"**{rows.part}**\n\n" if rows.part else ""
            parts.append(part + grid(rows))
    return "\n\n".join(parts)


def heading(rows: measured.Rows) -> list[str]:
    """The title of a table without what differs from the published settings, which follows."""
    title, _, changed = rows.title.partition(" (NOT ")
    warning = f"**Not {escaped(changed.removesuffix(')'))}.** " if changed else ""
    return [f"### {title}", f"{warning}[The whole table](../measured/{rows.table}.md)"]


NOT_MEASURED = "No table in [outputs/tables](../measured/index.md) has measured this method yet."


def grid(rows: measured.Rows) -> str:
    columns = range(len(rows.header))
    if SURVEYED[0] in rows.header:
        columns = [i for i in columns if i == 0 or rows.header[i] in SURVEYED]
    lines = [rows.header, ["---"] * len(rows.header), *rows.rows]
    text = "\n".join("| " + " | ".join(line[i] for i in columns) + " |" for line in lines)
    return measured.unbroken(text)


def escaped(text: str) -> str:
    """Plain text in Markdown: no emphasis by `*` and `_`, no cells by `|`, no HTML."""
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([*_|\[\]\\])", r"\\\1", text)


def anchor(title: str) -> str:
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title.lower())).strip("-")
