"""The lines of a filled table as text: its rows, and the remarks below them."""

from __future__ import annotations

from itertools import chain

from dimred.errors import counted, listed
from dimred.report.compose import Json
from dimred.report.measures import MEASURES

LEGEND = (
    "Mean ± sample standard deviation over seeds (number of seeds) [95 % interval of the mean, "
    "Student's t]. Bold: the best mean of a column, and all that are printed alike."
)
BESIDE = (
    "`difference` is ours less the published number; **!** marks one that is more than the "
    "tolerance and more than two published standard deviations."
)
CUT = (
    "‡ the final cut pruned more than a tenth of the weights to be pruned: the method alone did "
    "not reach the sparsity (`own_density` in result.json)."
)
RECALLED = "† was recalled from memory, not read in the source: verify it before you quote it."
Block = tuple[list[str], list[list[str]]]  # header, rows


def block(part: Json, bold: str) -> Block:
    """One table: the measured numbers of a row, and below them published numbers and
    differences."""
    columns = list(dict.fromkeys((tuple(c["column"]), c["measure"]) for c in part["cells"]))
    cells = {(tuple(c["row"]), tuple(c["column"]), c["measure"]): c for c in part["cells"]}
    heads = [head(part, column, measure) for column, measure in columns]
    compared = any(c["published"] for c in part["cells"])
    rows = []
    for row in dict.fromkeys(tuple(c["row"]) for c in part["cells"]):
        line = [cells.get((row, *column)) for column in columns]
        lines = [("ours", [measured(cell, bold) for cell in line])]
        for i in range(len(part["sources"])):
            lines.append((name_of(part, i), [published(c, i) for c in line]))
            lines.append((f"difference{letter(part, i)}", [difference(c, i, bold) for c in line]))
        # the labels of a row stand in the first of its lines
        labels = list(row)
        for name, texts in lines:
            if any(texts):
                rows.append([*labels, name, *texts] if compared else [*labels, *texts])
                labels = [""] * len(row)
    return [*part["row_axes"], *([""] if compared else []), *heads], rows


def head(part: Json, column: tuple[str, ...], measure: str) -> str:
    """The label of a column, with the measure if there are several or no other label."""
    if len(part["measures"]) > 1 or not column:
        column = (*column, MEASURES[measure].label)
    return ", ".join(column)


def only_measure(part: Json) -> str:
    """The measure as a sentence, if there is one only, which columns do not name."""
    if len(part["measures"]) > 1:
        return ""
    label = MEASURES[part["measures"][0]].label
    return f"{label[:1].upper()}{label[1:]}."


def letter(part: Json, i: int) -> str:
    return f" {chr(ord('a') + i)}" if len(part["sources"]) > 1 else ""


def name_of(part: Json, i: int) -> str:
    """The name of a source's line, with how its numbers were selected."""
    selected = ", best test epoch" if part["sources"][i]["best_test_epoch"] else ""
    return f"published{letter(part, i)}{selected}"


def measured(cell: Json | None, bold: str) -> str:
    if cell is None or not cell["wanted"]:
        return ""
    if cell["mean"] is None and cell["failed"]:
        return str(cell["failed"][0]["state"])
    if cell["mean"] is None:
        return "unknown" if cell["older"] else "missing"
    measure = MEASURES[cell["measure"]]
    text = measure.text(cell["mean"], cell["std"])
    if cell["best"]:
        text = bold.format(text)
    if measure.interval:
        if cell["cut"]:
            text += " ‡"
        seeds = f"{cell['n']}"
        if cell["n"] != cell["wanted"]:
            seeds += f" of {cell['wanted']}"
        text += f" ({seeds})"
        if cell["low"] is not None:
            text += f" [{measure.text(cell['low'])}, {measure.text(cell['high'])}]"
    return text


def marks(parts: list[Json], recalled: bool) -> list[str]:
    """The meaning of the marks that the table uses."""
    lines = []
    for cell in chain.from_iterable(part["cells"] for part in parts):
        if cell["cut"] and MEASURES[cell["measure"]].interval:
            lines = [CUT]
    return [*lines, RECALLED] if recalled else lines


def published(cell: Json | None, source: int) -> str:
    number = number_of(cell, source)
    if number is None:
        return ""
    return f"{number['text']} †" if number["recalled"] else str(number["text"])


def difference(cell: Json | None, source: int, bold: str) -> str:
    number = number_of(cell, source)
    if cell is None or number is None or number["difference"] is None:
        return ""
    text = MEASURES[cell["measure"]].signed(number["difference"])
    return f"{text} {bold.format('!')}" if number["outside"] else text


def number_of(cell: Json | None, source: int) -> Json | None:
    """What a source published for a cell."""
    if cell is None:
        return None
    return next((each for each in cell["published"] if each["source"] == source), None)


def remarks(document: Json) -> list[str]:
    """The lines below a table: sources, failures, runs that are not counted."""
    lines = []
    for part in document["parts"]:
        where = f"{part['part']}: " if part["part"] else ""
        lines += [f"{where}{line}" for line in sources(part)]
        lines += failures(part, where)
        for measure in part["measures"]:
            if older := sum(cell["older"] for cell in part["cells"] if cell["measure"] == measure):
                lines.append(
                    f"{where}{counted(older, 'run')} without {measure}: an older version of "
                    "dimred made them, "
                    "or they are damaged. To make them again, remove their folders"
                )
    lines += [f"not counted (other settings): {line}" for line in document["near_misses"]]
    return lines + document["remarks"]


def sources(part: Json) -> list[str]:
    lines = []
    for i, source in enumerate(part["sources"]):
        about = f"{MEASURES[source['measure']].label}; tolerance {source['tolerance']:g}"
        if source["note"]:
            about += f"; {source['note']}"
        mark = " †" if source["recalled"] else ""
        lines.append(f"{name_of(part, i)}: {source['source']} ({about}){mark}")
    return lines


def failures(part: Json, where: str) -> list[str]:
    """Each reason once, with its runs."""
    reasons: dict[str, list[str]] = {}
    # the cells of the other measures have the same runs
    cells = [cell for cell in part["cells"] if cell["measure"] == part["measures"][0]]
    for cell in cells:
        place = f"{where}{' / '.join((*cell['row'], *cell['column']))}"
        for failed in cell["failed"]:
            reason = f"{failed['state']}: {' '.join(failed['why'].split())}"
            reasons.setdefault(reason, []).append(f"{place}, seed {failed['seed']}")
    return [f"{listed(places, separator='; ')} {reason}" for reason, places in reasons.items()]


def verdict(claim: Json) -> str:
    if claim["verdict"] == "open":
        return f"{claim['says']}: open, runs are missing."
    measure = MEASURES[claim["measure"]]
    one, other = (measure.text(mean) for mean in claim["means"])
    return (
        f"{claim['says']}: {claim['verdict']} ({one} against {other}: {claim['found']:.4g}, at "
        f"least {claim['least']:g} is claimed; {claim['n'][0]} and "
        f"{counted(claim['n'][1], 'run')})."
    )


def missing(document: Json) -> list[str]:
    """The commands of all missing runs, each once."""
    cells = chain.from_iterable(part["cells"] for part in document["parts"])
    commands = dict.fromkeys(cell["command"] for cell in cells)
    return [command for command in commands if command]
