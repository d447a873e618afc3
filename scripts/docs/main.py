"""docs/methods.md: every method, basis and allocation, from docstrings and configurations alone."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from dimred.runs.config.docstrings import describe

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/methods.md"

INTRODUCTION = """\
<!-- Written by scripts/make_docs from docstrings and conf/; a test compares. -->
# Methods

{count} methods. Each is a short program in `dimred/methods/`; `conf/method/NAME.yaml` lists its fields and their values.
`dimred train method=NAME` chooses a method, and `method.FIELD=VALUE` changes a field. `sparsity` is the fraction of the
covered weights that is not trained: `d` of `D` numbers are trained. `psi` denotes these numbers, `theta` the weight and
`g` its gradient.

- **trains**: the numbers that the optimiser changes (biases and norms train too, unless the entry says otherwise)
- **stores**: what a file of the finished network has to hold beyond the trained values
- **needs**: the dense gradients or dense weights that training holds beyond the trained ones
- **values**: the fields of the method with their defaults, and its allocation unless that is `global`
"""


def main() -> int:
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.read_text() == page() else 1
    PAGE.write_text(page())
    return 0


def page() -> str:
    methods = sorted(
        (entry("method", path) for path in (ROOT / "conf/method").glob("*.yaml")),
        key=lambda row: (row["family"], row["name"]),
    )
    parts = [INTRODUCTION.format(count=len(methods))]
    for family, members in groupby(methods, key=lambda row: row["family"]):
        rows = list(members)
        about, file = rows[0]["about"], rows[0]["file"]
        parts += [
            f"## {family}\n",
            f"{about[:1].upper()}{about[1:]} (`dimred/{file}`)\n",
            table(rows),
        ]
    for group, title in (("basis", "Bases"), ("allocation", "Allocations")):
        rows = [entry(group, path) for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]
        parts += [
            f"## {title}\n",
            f"{GROUPS[group]} `dimred train {group}=NAME`.\n",
            table([row for row in rows if row["summary"]]),
        ]
    return "\n".join(parts)


GROUPS = {
    "basis": "Reparametrisations of the weights, which combine with any method: the method then "
    "prunes and trains coefficients in the basis.",
    "allocation": "The density of each layer at a given sparsity, for every method that has an "
    "allocation.",
}


def entry(group: str, path: Path) -> dict[str, str]:
    """The entry of a configuration."""
    keys: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
    target = keys.get("_target_")
    about = describe(target) if target else {"summary": ""}
    others = [
        line.split(": ", 1)
        for override in keys.get("defaults", [])
        for line in yaml.dump(override).splitlines()
    ]
    values = [f"{key.partition('.')[2] or key}={value}" for key, value in others]
    values += [
        f"{key}={plain(value)}"
        for key, value in keys.items()
        if key not in ("_target_", "defaults") and not str(value).startswith("${")
    ]
    return {**about, "name": path.stem, "values": ", ".join(values)}


def plain(value: object) -> str:
    """A value in YAML."""
    if isinstance(value, list):
        return f"[{', '.join(map(plain, value))}]"
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


COLUMNS = {
    "name": "name",
    "what it does": "summary",
    "equation": "equation",
    "trains": "trains",
    "stores": "stores",
    "needs": "needs",
    "values": "values",
    "source": "source",
}


def table(rows: Any) -> str:
    """A Markdown table without its empty columns."""
    code = {"name", "equation", "values"}
    cells = [[cell(row.get(key, ""), key in code) for key in COLUMNS.values()] for row in rows]
    used = [i for i in range(len(COLUMNS)) if any(row[i] for row in cells)]
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *cells]
    return "".join("| " + " | ".join(line[i] for i in used) + " |\n" for line in lines)


def cell(text: str, code: bool) -> str:
    lines = [line.strip().replace("|", "\\|") for line in text.splitlines()]
    return "<br>".join(f"`{line}`" if code else line for line in lines if line)


if __name__ == "__main__":
    sys.exit(main())
