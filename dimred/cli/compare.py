"""dimred compare: what differs between two runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dimred.cli.commands import Parser, add_json, existing_folder
from dimred.cli.mask import overlaps
from dimred.errors import UserError
from dimred.runs.printing import table

if TYPE_CHECKING:
    from dimred.report.runs import Run
    from dimred.report.two_runs import Comparison, Pairs


def parser() -> Parser:
    parser = Parser(
        "compare",
        "RUN RUN [--json]",
        summary="Show what differs between two runs: configuration, data, versions, numbers, "
        "masks.",
    )
    for name in ("one", "other"):
        parser.add_argument(name, metavar="RUN", type=existing_folder, help="the folder of a run")
    add_json(parser)
    return parser


def run(arguments: list[str]) -> int:
    given = parser().parse(arguments)
    from dimred.report.runs import read_run
    from dimred.report.two_runs import compared

    folders = given.one, given.other
    runs = [read_run(folder) for folder in folders]
    for run in runs:
        if not run.config:
            raise UserError(f"{run.folder} is not a run ({run.why}). Runs are in outputs/runs/")
    found = compared(runs[0], runs[1], folders)
    if given.json:
        print(json.dumps(as_json(runs, found), indent=2))
    else:
        print("\n\n".join([heading(runs), *sections(found)]))
    return 0


def as_json(runs: list[Run], found: Comparison) -> dict[str, Any]:
    about = [{"folder": str(run.folder), "state": run.state} for run in runs]
    return {"runs": about, **found._asdict()}


def heading(runs: list[Run]) -> str:
    rows = []
    for name, run in zip(("A", "B"), runs, strict=True):
        why = f" ({run.why})" if run.why else ""
        rows.append((name, run.folder, run.state + why))
    return table(("", "", ""), rows)


def sections(found: Comparison) -> list[str]:
    parts = {
        "configuration": found.configuration,
        "data": found.data,
        "versions": found.versions,
    }
    shown, same = [], []
    for name, pairs in parts.items():
        if pairs:
            rows = [(key, *map(value_text, pair)) for key, pair in pairs.items()]
            shown.append(table((name, "A", "B"), rows))
        else:
            same.append(name)
    if found.no_numbers:
        shown.append(found.no_numbers)
        same.remove("versions")
    elif found.numbers:
        shown.append(table(("number", "A", "B", "B - A", "B / A"), number_rows(found.numbers)))
    else:
        same.append("numbers")
    if found.masks is None:
        shown.append(f"masks: not compared ({found.no_masks})")
    else:
        shown.append(overlaps(found.masks))
    if same:
        shown.append(f"no difference in {', '.join(same)}")
    return shown


def value_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def number_rows(pairs: Pairs) -> list[tuple[str, ...]]:
    from dimred.report.measures import is_number

    rows = list[tuple[str, ...]]()
    for key, (one, other) in pairs.items():
        difference, ratio = "", ""
        if is_number(one) and is_number(other):
            difference = number_text(other - one, sign="+")
            ratio = f"{other / one:.4g}" if one else ""
        rows.append((key, number_text(one), number_text(other), difference, ratio))
    return rows


def number_text(value: Any, sign: str = "") -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value_text(value)
    return f"{value:{sign},}" if isinstance(value, int) else f"{value:{sign},.6g}"
