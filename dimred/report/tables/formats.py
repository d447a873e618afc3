"""Print a filled table (see fill.py) as Markdown, LaTeX, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from itertools import chain
from typing import Any

from dimred.report.compose import Json
from dimred.report.tables import paired
from dimred.report.tables.lines import (
    BESIDE,
    LEGEND,
    block,
    marks,
    missing,
    only_measure,
    remarks,
    sources,
    verdict,
)
from dimred.runs.terminal import CONTROL, printable


# -- for readers --------------------
def markdown(document: Json) -> str:
    out = [
        f"# {document['title']}",
        *([f"Source: {document['source']}"] if document["source"] else []),
        *document["notes"],
    ]
    if document["changed"]:
        out.append(f"**These are not the published settings: {document['changed']}.**")
    for part in document["parts"]:
        out += [f"## {part['part']}"] if part["part"] else []
        out += filter(None, [only_measure(part)])
        out.append(grid(*block(part, "**{}**")))
        if about_tests := paired.legend(part):
            out += [about_tests, grid(*paired.block(part))]
        if part["claims"]:
            out.append("\n".join(f"- {verdict(claim)}" for claim in part["claims"]))
    cells = chain.from_iterable(part["cells"] for part in document["parts"])
    shown = list(chain.from_iterable(cell["published"] for cell in cells))
    recalled = any(number["recalled"] for number in shown)
    beside = [BESIDE] if shown else []
    out.append(" ".join([LEGEND, *beside, *marks(document["parts"], recalled)]))
    if lines := remarks(document):
        out.append("\n".join(f"- {line}" for line in lines))
    if commands := missing(document):
        listed = "\n".join(f"    {line}" for line in commands)
        out.append(f"Missing, by command ({len(commands)}):\n\n{listed}")
    return printable("\n\n".join(out)) + "\n"


def grid(header: list[str], body: list[list[str]]) -> str:
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (header, *body)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    rows = []
    for line in lines:
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        rows.append(f"| {' | '.join(padded)} |")
    return "\n".join(rows)


def latex(document: Json) -> str:
    """Tables for \\usepackage{booktabs}."""
    out = []
    for part in document["parts"]:
        header, rows = block(part, "\0{}\1")
        left = len(header) - len({(tuple(c["column"]), c["measure"]) for c in part["cells"]})
        inside = tabular(header, rows, left)
        about_tests = paired.legend(part)
        if about_tests:
            header, rows = paired.block(part)
            inside += f"\\par\\medskip\n{tabular(header, rows, len(header) - 4)}"
        sentences = [
            f"{document['title']}.",
            f"{part['part']}." if part["part"] else "",
            only_measure(part),
            f"{document['source']}." if document["source"] else "",
            LEGEND,
            BESIDE if part["sources"] else "",
            about_tests,
            *map(verdict, part["claims"]),
            *marks([part], any(source["recalled"] for source in part["sources"])),
        ]
        caption = " ".join(filter(None, sentences))
        below = "".join(f"\\par {escaped(line)}\n" for line in (*document["notes"], *sources(part)))
        out.append(
            f"\\begin{{table}}\n\\centering\n\\caption{{{escaped(caption)}}}\n{inside}"
            f"{{\\footnotesize\n{below}}}\n\\end{{table}}\n"
        )
    lines = [*remarks(document), *missing(document)]
    comments = "".join(f"% {' '.join(line.split())}\n" for line in lines)
    return printable("\n".join(out) + comments)


def tabular(header: list[str], rows: list[list[str]], left: int) -> str:
    """`left`: so many columns are aligned at the left, the others at the right."""
    body = "\n".join(f"{' & '.join(map(escaped, row))} \\\\" for row in rows)
    return (
        f"\\begin{{tabular}}{{{'l' * left}{'r' * (len(header) - left)}}}\n\\toprule\n"
        f"{' & '.join(map(escaped, header))} \\\\\n\\midrule\n{body}\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"$\dagger$",
    "−": "$-$",
    "×": r"$\times$",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "\0": r"\textbf{",
    "\1": "}",
    "`": "",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def escaped(text: str) -> str:
    text = re.sub(r"\*\*(.*?)\*\*", "\0\\1\1", text)
    return "".join(SPECIAL.get(c, c) for c in text)


# -- for programs --------------------
def flat_rows(document: Json) -> list[Json]:
    """A row for every cell, measure and published number."""
    rows = []
    for part in document["parts"]:
        for cell in part["cells"]:
            about = {"table": document["table"], "changed": document["changed"]}
            about |= {"part": part["part"], **flat_cell(cell)}
            for number in cell["published"] or [None]:
                source = part["sources"][number["source"]] if number else {}
                rows.append(about | flat_published(number or {}, source) | flat_missing(cell))
    return rows


def flat_cell(cell: Json) -> Json:
    numbers = {name: cell[name] for name in ("mean", "std", "n", "low", "high", "best")}
    return {
        "row": " / ".join(cell["row"]),
        "column": " / ".join(cell["column"]),
        "measure": cell["measure"],
        **numbers,
        **flat_test(cell),
    }


def flat_test(cell: Json) -> Json:
    """The columns of a table with tests; empty in cells that are not compared."""
    if "test" not in cell:
        return {}
    return {f"test_{name}": (cell["test"] or {}).get(name) for name in paired.KEYS}


def flat_published(number: Json, source: Json) -> Json:
    return {
        "published_value": number.get("value"),
        "published_std": number.get("std"),
        "source": source.get("source"),
        "recalled": source.get("recalled"),
        "best_test_epoch": source.get("best_test_epoch"),
        "difference": number.get("difference"),
        "outside": number.get("outside"),
    }


def flat_missing(cell: Json) -> Json:
    failed = [f"seed {each['seed']} {each['state']}: {each['why']}" for each in cell["failed"]]
    return {
        "missing_seeds": " ".join(map(str, cell["missing"])),
        "failed": "; ".join(failed),
        "command": cell["command"],
    }


def as_csv(document: Json) -> str:
    rows, out = flat_rows(document), io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["table"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return printable(out.getvalue())


def as_json(document: Json) -> str:
    text = json.dumps(document, indent=1, ensure_ascii=False)
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


FORMATS: dict[str, Callable[[Any], str]] = {
    "md": markdown,
    "latex": latex,
    "csv": as_csv,
    "json": as_json,
}
