"""A filled table (dimred.report.tables.fill.fill) as Markdown, LaTeX, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from typing import Any

from dimred.report.compose import Json
from dimred.report.measures import MEASURES
from dimred.runs.terminal import CONTROL, printable

LEGEND = (
    "Mean ± sample standard deviation over seeds (their number) [95 % interval of the mean, Student's t]. Bold: "
    "the best mean of a column, and what is printed alike."
)
BESIDE = (
    "`published` is what the source says; `difference` is ours less it, with **!** where that is more than the "
    "tolerance (or than two published standard deviations, where these are more)."
)
CUT = (
    "‡ more than a tenth of the weights to be pruned was left to the final cut: by itself the "
    "method did not become as sparse (`own_density` in result.json)."
)
RECALLED = "† was recalled from memory, not read in the source: verify it before quoting it."
Block = tuple[list[str], list[list[str]]]  # header, rows


# -- for readers --------------------
def block(part: Json, bold: str) -> Block:
    """One table: a row's measured numbers, below them what was published and the difference, where
    there is any."""
    columns = list(dict.fromkeys((tuple(c["column"]), c["measure"]) for c in part["cells"]))
    cells = {(tuple(c["row"]), tuple(c["column"]), c["measure"]): c for c in part["cells"]}
    several = len(part["measures"]) > 1
    heads = [
        ", ".join([*column, *([MEASURES[measure].label] if several or not column else [])])
        for column, measure in columns
    ]
    compared = any(c["published"] for c in part["cells"])
    rows = []
    for row in dict.fromkeys(tuple(c["row"]) for c in part["cells"]):
        line = [cells.get((row, *column)) for column in columns]
        lines = [("ours", [measured(cell, bold) for cell in line])]
        for i in range(len(part["sources"])):
            lines.append((name_of(part, i), [published(c, i) for c in line]))
            lines.append((f"difference{letter(part, i)}", [difference(c, i, bold) for c in line]))
        lines = [each for each in lines if any(each[1])]
        rows += [
            [*(row if k == 0 else [""] * len(row)), *([what] if compared else []), *texts]
            for k, (what, texts) in enumerate(lines)
        ]
    return [*part["row_axes"], *([""] if compared else []), *heads], rows


def what_is_measured(part: Json) -> str:
    """Where columns do not say it."""
    label = MEASURES[part["measures"][0]].label
    return f"{label[:1].upper()}{label[1:]}." if len(part["measures"]) == 1 else ""


def letter(part: Json, i: int) -> str:
    return f" {chr(ord('a') + i)}" if len(part["sources"]) > 1 else ""


def name_of(part: Json, i: int) -> str:
    """Of the line of a source. What was selected on the test set says so."""
    return f"published{letter(part, i)}{', best test epoch' if part['sources'][i]['best_test_epoch'] else ''}"


def measured(cell: Json | None, bold: str) -> str:
    if cell is None or not cell["wanted"]:
        return ""
    if cell["mean"] is None:
        return (
            cell["failed"][0]["state"]
            if cell["failed"]
            else "unknown"
            if cell["older"]
            else "missing"
        )
    measure = MEASURES[cell["measure"]]
    text = measure.text(cell["mean"], cell["std"])
    text = bold.format(text) if cell["best"] else text
    if measure.interval:
        text += " ‡" if cell["cut"] else ""
        text += (
            f" ({cell['n']}{'' if cell['n'] == cell['wanted'] else ' of ' + str(cell['wanted'])})"
        )
        if cell["low"] is not None:
            text += f" [{measure.text(cell['low'])}, {measure.text(cell['high'])}]"
    return text


def marks(parts: list[Json], recalled: bool) -> list[str]:
    """What the signs beside numbers mean, of those that there are."""
    cut = any(
        cell["cut"]
        for part in parts
        for cell in part["cells"]
        if MEASURES[cell["measure"]].interval
    )
    return [*([CUT] if cut else []), *([RECALLED] if recalled else [])]


def published(cell: Json | None, source: int) -> str:
    texts = [
        f"{number['text']}{' †' if number['recalled'] else ''}"
        for number in (cell["published"] if cell else [])
        if number["source"] == source
    ]
    return "".join(texts)


def difference(cell: Json | None, source: int, bold: str) -> str:
    for number in cell["published"] if cell else []:
        if cell and number["source"] == source and number["difference"] is not None:
            text = MEASURES[cell["measure"]].signed(number["difference"])
            return f"{text} {bold.format('!')}" if number["outside"] else text
    return ""


def remarks(document: Json) -> list[str]:
    """What is said below: sources, what failed, what is not counted."""
    lines = []
    for part in document["parts"]:
        where = f"{part['part']}: " if part["part"] else ""
        lines += [f"{where}{line}" for line in sources(part)]
        lines += failures(part, where)
        for measure in part["measures"]:
            if older := sum(cell["older"] for cell in part["cells"] if cell["measure"] == measure):
                lines.append(
                    f"{where}{older} runs have no {measure}: an older version of dimred made them, or they "
                    "are damaged. Remove their folders to have them made again"
                )
    lines += [f"not counted, because of other settings: {line}" for line in document["near_misses"]]
    return lines + document["remarks"]


def sources(part: Json) -> list[str]:
    return [
        f"{name_of(part, i)}: {source['source']} ({MEASURES[source['measure']].label}; tolerance "
        f"{source['tolerance']:g}{'; ' + source['note'] if source['note'] else ''})"
        f"{' †' if source['recalled'] else ''}"
        for i, source in enumerate(part["sources"])
    ]


def failures(part: Json, where: str) -> list[str]:
    """Each reason once, with the cells that it holds for."""
    reasons: dict[str, list[str]] = {}
    for cell in part["cells"]:
        for failed in cell["failed"] if cell["measure"] == part["measures"][0] else []:
            name = f"{where}{' / '.join((*cell['row'], *cell['column']))}, seed {failed['seed']}"
            reasons.setdefault(f"{failed['state']}: {' '.join(failed['why'].split())}", []).append(
                name
            )
    return [
        f"{'; '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''} {reason}"
        for reason, names in reasons.items()
    ]


def verdict(claim: Json) -> str:
    if claim["verdict"] == "open":
        return f"{claim['says']}: open, as long as runs are missing."
    kind = MEASURES[claim["measure"]]
    one, other = (kind.text(mean) for mean in claim["means"])
    return (
        f"{claim['says']}: {claim['verdict']} ({one} against {other}: {claim['found']:.4g}, at least "
        f"{claim['least']:g} is claimed; {claim['n'][0]} and {claim['n'][1]} runs)."
    )


def missing(document: Json) -> list[str]:
    return list(
        dict.fromkeys(
            cell["command"]
            for part in document["parts"]
            for cell in part["cells"]
            if cell["command"]
        )
    )


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
        out += filter(None, [what_is_measured(part)])
        out.append(grid(*block(part, "**{}**")))
        if part["claims"]:
            out.append("\n".join(f"- {verdict(claim)}" for claim in part["claims"]))
    shown = [
        number
        for part in document["parts"]
        for cell in part["cells"]
        for number in cell["published"]
    ]
    recalled = any(number["recalled"] for number in shown)
    out.append(
        " ".join([LEGEND, *([BESIDE] if shown else []), *marks(document["parts"], recalled)])
    )
    if lines := remarks(document):
        out.append("\n".join(f"- {line}" for line in lines))
    if commands := missing(document):
        out.append(
            f"Missing, by command ({len(commands)}):\n\n"
            + "\n".join(f"    {line}" for line in commands)
        )
    return printable("\n\n".join(out)) + "\n"


def grid(header: list[str], rows: list[list[str]]) -> str:
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(c.ljust(w) for c, w in zip(line, widths, strict=True))} |" for line in lines
    )


def latex(document: Json) -> str:
    """For \\usepackage{booktabs}."""
    out = []
    for part in document["parts"]:
        header, rows = block(part, "\0{}\1")
        left = len(header) - len({(tuple(c["column"]), c["measure"]) for c in part["cells"]})
        body = "\n".join(f"{' & '.join(map(escaped, row))} \\\\" for row in rows)
        caption = " ".join(
            filter(
                None,
                [
                    f"{document['title']}.",
                    f"{part['part']}." if part["part"] else "",
                    what_is_measured(part),
                    f"{document['source']}." if document["source"] else "",
                    LEGEND,
                    BESIDE if part["sources"] else "",
                    *map(verdict, part["claims"]),
                    *marks([part], any(source["recalled"] for source in part["sources"])),
                ],
            )
        )
        below = "".join(f"\\par {escaped(line)}\n" for line in (*document["notes"], *sources(part)))
        out.append(
            f"\\begin{{table}}\n\\centering\n\\caption{{{escaped(caption)}}}\n"
            f"\\begin{{tabular}}{{{'l' * left}{'r' * (len(header) - left)}}}\n\\toprule\n"
            f"{' & '.join(map(escaped, header))} \\\\\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
            f"{{\\footnotesize\n{below}}}\n\\end{{table}}\n"
        )
    said = "".join(
        f"% {' '.join(line.split())}\n" for line in (*remarks(document), *missing(document))
    )
    return printable("\n".join(out) + said)


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
    """A row for every cell, measure and published number of it."""
    rows = []
    for part in document["parts"]:
        for cell in part["cells"]:
            for number in cell["published"] or [None]:
                source = part["sources"][number["source"]] if number else {}
                rows.append(
                    {
                        "table": document["table"],
                        "changed": document["changed"],
                        "part": part["part"],
                        "row": " / ".join(cell["row"]),
                        "column": " / ".join(cell["column"]),
                        "measure": cell["measure"],
                        **{
                            name: cell[name] for name in ("mean", "std", "n", "low", "high", "best")
                        },
                        **{
                            f"published_{name}": number[name] if number else None
                            for name in ("value", "std")
                        },
                        **{
                            name: source.get(name)
                            for name in ("source", "recalled", "best_test_epoch")
                        },
                        "difference": number["difference"] if number else None,
                        "outside": number["outside"] if number else None,
                        "missing_seeds": " ".join(map(str, cell["missing"])),
                        "failed": "; ".join(
                            f"seed {f['seed']} {f['state']}: {f['why']}" for f in cell["failed"]
                        ),
                        "command": cell["command"],
                    }
                )
    return rows


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
