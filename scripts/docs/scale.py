"""What the shipped tables cost on 1, 8 and 64 GPUs: the tables of docs/scale.md.

Runs are independent, so N GPUs take an N-th of the time, and no less than the longest run. Costs
and bytes of a run are those of run_costs.py and run_bytes.py. Nothing else is counted: neither
scoring nor the start of a run.

    scripts/scale [--price PER_GPU_HOUR]     the tables; --write: into the page
    scripts/scale --check DIR                predict finished runs, and compare
    scripts/scale --steps                    predict the time of training steps here, and compare
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from run_bytes import data_bytes, folder, tensors
from run_costs import flops, images, rate
from scale_check import check, steps

from dimred.report.compose import Json
from dimred.report.measures import prefixed
from dimred.report.tables.plan import left
from dimred.report.tables.published import read_table
from dimred.runs.config.files import names

PAGE = Path(__file__).parents[2] / "docs/scale.md"
BEGIN, END = "<!-- scripts/scale writes this table: {} -->\n", "<!-- end -->\n"
#: GPUs of a machine, which reads a file from its storage once
OF_A_MACHINE = 8


class Row(NamedTuple):
    """Of the runs of a table whose time is known."""

    name: str
    runs: int
    unknown: int
    images: float
    flops: float
    hours: float
    longest: float  # hours of the longest run
    kin: str


def jobs_of(name: str) -> tuple[list[Json], int]:
    """The descriptions of the runs of a table whose time is known, and how many runs it has."""
    wanted = [job.wanted for job in left(read_table(name), [])]
    return [each for each in wanted if rate(each)], len(wanted)


def row(name: str, known: Iterable[Json], count: int) -> Row:
    hours, seen, work, kins = list[float](), 0.0, 0.0, set[str]()
    for wanted in known:
        many, (a_second, kin) = images(wanted), rate(wanted) or (0.0, "")
        seen += many
        work += many * flops(wanted["model"], wanted["dataset"]["_target_"])
        hours.append(many / a_second / 3600)
        kins.add(kin)
    return Row(
        name,
        count,
        count - len(hours),
        seen,
        work,
        sum(hours),
        max(hours, default=0),
        ", ".join(sorted(kins)),
    )


def line(row: Row, price: float | None) -> str:
    known = row.runs - row.unknown
    cells = [row.name, f"{known} of {row.runs}"]
    if not known:
        return "| " + " | ".join([*cells, *["not known"] * (6 + (price is not None))]) + " |"
    cells += [f"{row.images / 1e6:,.0f} M", f"{row.flops:.1e}"]
    cells += [clock(max(row.hours / gpus, row.longest)) for gpus in (1, 8, 64)]
    if price is not None:
        cells.append(f"{row.hours * price:,.2f}")
    return "| " + " | ".join([*cells, row.kin]) + " |"


def clock(hours: float) -> str:
    if hours < 1 / 6:
        return f"{3600 * hours:.0f} s"
    return f"{60 * hours:.0f} min" if hours < 3 else f"{hours:,.0f} h"


def head(*columns: str) -> list[str]:
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def of_time(price: float | None) -> list[str]:
    columns = ["table", "runs", "images", "dense FLOPs", "1 GPU", "8 GPUs", "64 GPUs"]
    columns += ["price"] if price is not None else []
    rows = [row(name, *jobs_of(name)) for name in names("table")]
    return [*head(*columns, "at the rate of"), *(line(each, price) for each in rows)]


# -- bytes --------------------
def of_bytes() -> list[str]:
    columns = ["table", "runs", "run folders", "read by all runs", "from storage, 1 or 8 GPUs"]
    columns += ["64 GPUs", "reduced in a step: dense net", "sparsest net"]
    return [*head(*columns), *(bytes_line(name, *jobs_of(name)) for name in names("table"))]


def bytes_line(name: str, known: Sequence[Json], count: int) -> str:
    cells = [name, f"{len(known)} of {count}"]
    if not known:
        return "| " + " | ".join([*cells, *["not known"] * 6]) + " |"
    sets = [wanted["dataset"]["_target_"] for wanted in known]
    once = sum(map(data_bytes, set(sets)))
    dense = [tensors(wanted, sparse=False).reduced for wanted in known]
    sizes = [
        sum(map(folder, known)),
        sum(map(data_bytes, sets)),
        once,
        once * 64 // OF_A_MACHINE,
    ]
    cells += [*map(size, sizes), span(dense), size(min(tensors(each).reduced for each in known))]
    return "| " + " | ".join(cells) + " |"


def span(sizes: Sequence[int]) -> str:
    low, high = size(min(sizes)), size(max(sizes))
    return low if low == high else f"{low} to {high}"


def size(count: float) -> str:
    factor, prefix = prefixed(count)
    return f"{count / factor:.3g} {prefix}B"


# -- the page --------------------
def write(about: str, lines: Sequence[str]) -> None:
    """Put a table in its place of the page."""
    begin = BEGIN.format(about)
    before, rest = PAGE.read_text().split(begin)
    after = rest.partition(END)[2]
    PAGE.write_text(before + begin + "\n".join(lines) + "\n" + END + after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--price", type=float, help="of a GPU for an hour, in your currency")
    parser.add_argument("--check", type=Path, metavar="DIR", help="a folder of finished runs")
    parser.add_argument("--steps", action="store_true", help="time training steps here")
    parser.add_argument("--write", action="store_true", help="into docs/scale.md")
    given = parser.parse_args()
    if given.check or given.steps:
        print("\n".join(check(given.check) if given.check else steps()))
        return
    for about, lines in (("time", of_time(given.price)), ("bytes", of_bytes())):
        if given.write:
            write(about, lines)
        else:
            print(*lines, "", sep="\n")


if __name__ == "__main__":
    main()
