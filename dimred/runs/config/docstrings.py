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
    is none. `family` and `about` are the title and the rest of the first paragraph of its family's
    own docstring, and `file` is the family's file."""
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
        **family_of(path),
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


@lru_cache
def family_of(path: Path) -> dict[str, str]:
    """The family of a class in dimred/methods/FAMILY.py or dimred/methods/FAMILY/FILE.py. The
    docstring of FAMILY begins with its title and a colon."""
    package = path.parent / "__init__.py"
    file = path if path.parent.parent == PACKAGE else package
    paragraph = (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")[0]
    title, _, about = " ".join(paragraph.split()).partition(": ")
    return {"family": title, "about": about, "file": file.relative_to(PACKAGE).as_posix()}


@lru_cache
def docstrings(path: Path) -> dict[str, str]:
    """Of the classes in a file."""
    return {
        node.name: ast.get_docstring(node) or ""
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
