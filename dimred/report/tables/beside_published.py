"""Published numbers beside ours: `beside` compares the numbers of one cell, `judge` a claim made in
words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping

from dimred.report.compose import Json
from dimred.report.measures import MEASURES
from dimred.report.runs import Run
from dimred.report.tables.table import Cell, Claim, Part, Source

ROUNDING = 1e-9  # in comparisons: 100 (1 - 0.98) is more than 2

Filled = Mapping[tuple[str, int], Run]  # runs by the key of their cell and their seed


def beside(part: Part, cell: Cell, measure: str, ours: float | None) -> list[Json]:
    """Every published number for a measure of a cell, with the difference: our mean less the
    published one.

    A difference is `outside` if it is more than the tolerance of the source, and more than twice
    the published standard deviation.
    """
    found = []
    for i, source in enumerate(part.published):
        published = source.values.get((cell.row, cell.column))
        if source.measure != measure or published is None:
            continue
        difference = None if ours is None else ours - published.value
        allowed = max(source.tolerance, 2 * (published.std or 0.0))
        comparison: Json = {
            "value": published.value,
            "std": published.std,
            "text": published.text,
            "source": i,
            "recalled": source.recalled,
            "difference": difference,
            "allowed": allowed,
            "outside": difference is not None and abs(difference) > allowed + ROUNDING,
        }
        found.append(comparison)
    return found


def about(source: Source) -> Json:
    """A source without its numbers."""
    return {
        "source": source.source,
        "measure": source.measure,
        "tolerance": source.tolerance,
        "recalled": source.recalled,
        "best_test_epoch": source.best_test_epoch,
        "note": source.note,
    }


def judge(claim: Claim, part: Part, runs: Filled) -> Json:
    """Compare the means of a claim's two cells. The verdict is "holds" or "does not hold" (either
    with "so far" while seeds are missing), or "open" if a cell has no runs."""
    keys = {(cell.row, cell.column): cell.key or "" for cell in part.cells}
    found = []
    for place in (claim.cell, claim.against):
        of_cell = [runs.get((keys[place], seed)) for seed in part.seeds]
        found.append(numbers(filter(None, of_cell), claim.measure))
    ours: Json = {
        "says": claim.says,
        "cell": claim.cell,
        "against": claim.against,
        "measure": claim.measure,
        "n": [len(values) for values in found],
        "verdict": "open",
        "found": None,
    }
    if not all(found):
        return ours
    one, other = map(statistics.fmean, found)
    if claim.ratio_at_least is not None:
        value, least = one / other if other else math.inf, claim.ratio_at_least
    else:
        value, least = one - other, claim.difference_at_least or 0.0
    verdict = "holds" if value >= least - ROUNDING else "does not hold"
    if min(ours["n"]) < len(part.seeds):
        verdict += " so far"
    return ours | {"found": value, "least": least, "means": [one, other], "verdict": verdict}


def numbers(runs: Iterable[Run], measure: str) -> list[float]:
    """A measure of the runs that are done and have it."""
    done = [run for run in runs if run.state == "done"]
    values = [MEASURES[measure].value(run.result) for run in done]
    return [value for value in values if value is not None]
