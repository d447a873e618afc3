"""Every cell of a filled table against a reference row, paired by seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain

from dimred.errors import UserError, nearest
from dimred.report.compose import Json
from dimred.report.measures import MEASURES
from dimred.report.tables.fill import summary
from dimred.report.tables.lines import Block
from dimred.report.tables.significance import holm, paired_t_test, seeds_needed, sign_test

#: of a test
KEYS = (
    *("against", "n", "difference", "std", "low", "high"),
    *("p_t", "p_t_holm", "p_sign", "p_sign_holm", "detect", "seeds_needed"),
)


def with_tests(document: Json, reference: str, detect: float | None) -> Json:
    """The document, with a test in each cell that can be compared with the reference row in its
    column. `detect`: the difference for which to count the seeds; the observed one if None.
    UserError if no row has this name."""
    rows = set()
    for cell in chain.from_iterable(part["cells"] for part in document["parts"]):
        rows.add(" / ".join(cell["row"]))
    if reference not in rows:
        raise UserError(f"unknown row {reference!r} of --against. {nearest(reference, rows)}")
    parts = []
    for part in document["parts"]:
        parts.append(part | {"cells": cells_with_tests(part["cells"], reference, detect)})
    return document | {"parts": parts}


def cells_with_tests(cells: list[Json], reference: str, detect: float | None) -> list[Json]:
    own = [cell for cell in cells if " / ".join(cell["row"]) == reference]
    tested = []
    for cell in cells:
        other = None if cell in own else counterpart(cell, own)
        test = test_of(cell["values"], other["values"], detect) if other else None
        tested.append(cell | {"test": test and {"against": reference, **test}})
    correct(tested)
    return tested


def counterpart(cell: Json, own: Iterable[Json]) -> Json | None:
    """The reference in the column of a cell; a row that is shown in one column only is the same in
    all."""
    if not MEASURES[cell["measure"]].interval:
        return None
    alike = [each for each in own if each["measure"] == cell["measure"]]
    in_column = [each for each in alike if each["column"] == cell["column"]]
    return next(iter(in_column if len(alike) > 1 else alike), None)


def test_of(values: Json, others: Json, detect: float | None) -> Json | None:
    """Of the seeds that both have."""
    differences = [values[seed] - others[seed] for seed in values if seed in others]
    if not differences:
        return None
    found = summary(differences)
    std = found["std"] or 0.0
    difference = found.pop("mean")
    wanted = difference if detect is None else detect
    return {
        "difference": difference,
        **found,
        "p_t": paired_t_test(differences),
        "p_sign": sign_test(differences),
        "detect": wanted,
        "seeds_needed": seeds_needed(wanted, std),
    }


def correct(cells: Iterable[Json]) -> None:
    """Add p values that are corrected for the number of tests of the same measure."""
    by_measure: dict[str, list[Json]] = defaultdict(list)
    for cell in cells:
        if cell["test"]:
            by_measure[cell["measure"]].append(cell["test"])
    for tests in by_measure.values():
        for name in ("p_t", "p_sign"):
            adjusted = holm([test[name] for test in tests])
            for test, p in zip(tests, adjusted, strict=True):
                test[f"{name}_holm"] = p


# -- as text --------------------
def legend(part: Json) -> str:
    """What the block of tests shows, or empty if the part has none."""
    tests = [cell["test"] for cell in part["cells"] if cell.get("test")]
    if not tests:
        return ""
    return (
        f"Differences from {tests[0]['against']}, paired by seed: mean ± sample standard deviation "
        "of the differences (number of seeds) [95 % interval]; two-sided p values of the paired t "
        "test and of the sign test, with Holm's correction over all cells of this part; and the "
        "seeds with which the t test finds a difference at 5 % with a power of 80 %, if the "
        "standard deviation is the observed one."
    )


def block(part: Json) -> Block:
    cells = [cell for cell in part["cells"] if cell.get("test")]
    several = len({cell["measure"] for cell in cells}) > 1
    rows = []
    for cell in cells:
        measure, test = MEASURES[cell["measure"]], cell["test"]
        column = [*cell["column"], *([measure.label] if several else [])]
        text = measure.signed(test["difference"])
        if test["std"] is not None:
            low, high = measure.signed(test["low"]), measure.signed(test["high"])
            text += f" ± {measure.text(test['std'])} ({test['n']}) [{low}, {high}]"
        seeds = test["seeds_needed"]
        needed = f"{'–' if seeds is None else seeds} for {measure.signed(test['detect'])}"
        p_values = [p_text(test["p_t_holm"]), p_text(test["p_sign_holm"])]
        rows.append([*cell["row"], ", ".join(column), text, *p_values, needed])
    return [*part["row_axes"], "column", "difference", "p (t)", "p (sign)", "seeds"], rows


def p_text(p: float | None) -> str:
    if p is None:
        return "–"
    return f"{p:.2g}" if p >= 0.001 else "< 0.001"
