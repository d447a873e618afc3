"""dimred table: fill a published table from run folders."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dimred.cli.commands import Parser, add_config_dir
from dimred.errors import UserError, nearest
from dimred.runs.config.composition import own_folder, search_path
from dimred.runs.config.files import GROUPS, NOT_DESCRIPTIVE, conf, names
from dimred.runs.printing import table as columns

if TYPE_CHECKING:
    from dimred.report.compose import Json, Overrides
    from dimred.report.tables.table import Table

#: overrides that say where and how to compute; Hydra's own begin with "hydra"
WHERE = ("device", "data_dir", "outputs", "checkpoint_seconds", "hydra")
#: of these, what a command of one run cannot have
OF_A_SWEEP = re.compile(r"hydra[./](launcher|sweep|sweeper)\b")


class Request(NamedTuple):
    """The parsed arguments: a table, its cells that --only selects, and the overrides
    that say where and how to compute."""

    whole: Table
    table: Table
    where: Overrides

    @property
    def where_of_a_run(self) -> Overrides:
        """Without the launcher and the folder of a sweep."""
        return {key: value for key, value in self.where.items() if not OF_A_SWEEP.match(key)}

    def shown(self, filled: Json) -> Json:
        """The part of the filled table that --only selects."""
        from dimred.report.tables.excerpt import excerpt

        return excerpt(filled, self.whole, self.table) if self.table.only else filled


def parser() -> Parser:
    parser = Parser(
        "table",
        "[TABLE] [KEY=VALUE ...] [OPTION ...]",
        summary="Fill a published table from run folders; without a name, list the tables.",
    )
    add_table(parser)
    parser.add_argument(
        "--runs", metavar="DIR", help="where the runs are, a folder or a URL (default: outputs)"
    )
    parser.add_argument(
        "--format", choices=("md", "latex", "csv", "json"), default="md", help="default: md"
    )
    parser.add_argument(
        "--against",
        metavar="ROW",
        help="test the difference of every row from this one, paired by seed",
    )
    parser.add_argument(
        "--detect",
        type=float,
        metavar="DIFFERENCE",
        help="print how many seeds it takes to detect this difference (default: the observed one)",
    )
    return parser


def add_table(parser: Parser) -> None:
    """The arguments that choose a table and change its settings."""
    parser.add_argument("name", nargs="?", metavar="TABLE", help="a name, or the path of a .yaml")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="change a setting"
    )
    parser.add_argument(
        "--seeds",
        type=seeds_of,
        metavar="N",
        help="the number of seeds, or the seeds: 0,1,2",
    )
    parser.add_argument(
        "--scale", type=scale_of, default=1.0, metavar="FRACTION", help="shorten every recipe"
    )
    parser.add_argument("--only", metavar="REGEX", help="only cells whose names match")
    add_config_dir(parser)


def run(arguments: list[str]) -> int:
    given = parser().parse(arguments)
    if given.name is None:
        print(listed())
        return 0
    if given.detect is not None and given.against is None:
        raise UserError("--detect needs --against ROW: the row to which others are compared")
    asked = request(given)
    from dimred.report.remote import place_of
    from dimred.report.runs import find_runs
    from dimred.report.tables.fill import fill
    from dimred.report.tables.formats import FORMATS

    outputs = given.runs or asked.where.get("outputs", "outputs")
    place = place_of(outputs)
    nothing_run_yet = outputs == "outputs" and not place.exists()
    runs = [] if nothing_run_yet else find_runs(place)
    where = asked.where_of_a_run
    if given.runs and isinstance(place, Path):  # nothing can be written to a URL
        where = where | {"outputs": str(outputs_of(place))}
    document = fill(asked.whole, runs, where)
    if given.against is not None:
        from dimred.report.tables.paired import with_tests

        document = with_tests(document, given.against, given.detect)
    print(FORMATS[given.format](asked.shown(document)), end="")
    return 0


def outputs_of(place: Path) -> Path:
    """The value of outputs= that puts new runs into this folder: runs are in OUTPUTS/runs."""
    return next((path.parent for path in (place, *place.parents) if path.name == "runs"), place)


def listed() -> str:
    from dimred.report.tables.published import raw_table

    rows = [(name, raw_table(name)["title"]) for name in names("table")]
    return columns(("table", f"title (the files are in {conf() / 'table'})"), rows)


def request(given: Namespace) -> Request:
    """The table that the arguments name. UserError for overrides that a table cannot have."""
    from dimred.report import compose
    from dimred.report.tables.change import Change
    from dimred.report.tables.excerpt import only
    from dimred.report.tables.published import read_table

    words = [*([given.name] if given.name else []), *given.overrides]
    named = [word for word in words if "=" not in word]
    if len(named) != 1:
        raise UserError(
            f"name one table (got {' '.join(named) or 'no name'}). dimred table lists the tables"
        )
    typed = compose.split([word for word in words if "=" in word])
    where = {key: value for key, value in typed.items() if re.split("[./]", key)[0] in WHERE}
    changes = {key: value for key, value in typed.items() if key not in where}
    if given.config_dir:
        folder = own_folder(given.config_dir)
        compose.folders[:] = [folder]
        key, _, value = search_path(folder).partition("=")
        where[key] = value
    require_changeable(changes)
    change = Change(given.scale, tuple(changes.items()))
    whole = read_table(named[0], change, given.seeds)
    return Request(whole, only(whole, given.only) if given.only else whole, where)


def require_changeable(changes: Overrides) -> None:
    allowed = {*GROUPS, "sparsity", "include", "exclude"}
    for key in changes:
        if key == "seed":
            raise UserError("seed is set by the table. Choose other seeds with --seeds 0,1,2")
        if key.partition(".")[0] not in allowed:
            raise UserError(f"unknown key {key}. {nearest(key, allowed | {*NOT_DESCRIPTIVE})}")


def scale_of(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = -1.0
    if not 0 < scale <= 1:
        raise UserError(
            f"--scale {text} is not allowed. It must be a fraction of the recipe's length in (0, 1]"
        )
    return scale


def seeds_of(text: str) -> list[int]:
    """0,1,2, or their number: 3."""
    if text.strip() == "0":
        raise UserError(
            "--seeds 0 means no seeds: one number is how many. Seed 0 alone: --seeds 1; one other "
            "seed alone: --seeds 7,"
        )
    try:
        if "," in text:
            seeds = [int(seed) for seed in text.split(",") if seed]
        else:
            seeds = list(range(int(text)))
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        raise UserError(
            f"--seeds {text} is not allowed. It must be a number of seeds (3), or the seeds "
            "(0,1,2; for one: 7,)"
        )
    return list(dict.fromkeys(seeds))
