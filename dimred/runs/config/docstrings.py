"""What the docstrings of methods, bases and allocations say, read without importing them (or
torch).

One sentence: what it does.

    the equation, indented

Notes, in any number of paragraphs.

Trains: ...; stores: ... (beyond trained values); needs: ... (of dense gradients and weights, while
it trains).

The source.
"""

from __future__ import annotations

import ast
import re
import textwrap
from functools import lru_cache
from pathlib import Path

from dimred.errors import UserError

PACKAGE = Path(__file__).parents[2]
FACTS = ("trains", "stores", "needs")


def describe(target: str) -> dict[str, str]:
    """The parts of the docstring of `dimred.FILE.NAME` or `dimred.methods.NAME`; empty where there
    is none. The family is the name of the file, or of the package that the file is part of."""
    path, docstring = find(target)
    parts = docstring.split("\n\n")
    lines = [" ".join(part.split()) for part in parts]
    facts = next(
        filter(
            None, (re.fullmatch("Trains: (.*?); stores: (.*?); needs: (.*)[.]", s) for s in lines)
        ),
        None,
    )
    return {
        "family": family_of(path).replace("_", " "),
        "summary": lines[0],
        "equation": "\n".join(
            textwrap.dedent(part) for part in parts[1:-1] if part.startswith("    ")
        ),
        **dict(zip(FACTS, facts.groups() if facts else ("",) * len(FACTS), strict=True)),
        "source": lines[-1] if len(parts) > 1 else "",
    }


def find(target: str) -> tuple[Path, str]:
    """The file of a class, and its docstring."""
    *package, name = target.split(".")[1:]
    folder = PACKAGE.joinpath(*package)
    for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]:
        if name in docstrings(path):
            return path, docstrings(path)[name]
    raise UserError(f"a configuration names {target}, which is not in {folder}")


def family_of(path: Path) -> str:
    """dimred/methods/FAMILY.py or dimred/methods/FAMILY/FILE.py."""
    inside = path.relative_to(PACKAGE).with_suffix("").parts
    return inside[1] if len(inside) > 1 else inside[0]


@lru_cache
def docstrings(path: Path) -> dict[str, str]:
    """Of the classes in a file."""
    return {
        node.name: ast.get_docstring(node) or ""
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
