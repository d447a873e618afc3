"""dimred table: a published table, from run folders alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dimred.cli.arguments import flags, option
from dimred.errors import UserError, nearest
from dimred.runs.config.composition import own_folder, search_path
from dimred.runs.config.files import GROUPS, NOT_DESCRIPTIVE, conf, names
from dimred.runs.printing import table as columns

if TYPE_CHECKING:
    from dimred.report.compose import Json, Overrides
    from dimred.report.tables.published import Table

#: overrides that say where and how to compute; "hydra" is the beginning of its own
WHERE = ("device", "data_dir", "outputs", "checkpoint_seconds", "hydra")


class Request(NamedTuple):
    whole: Table
    table: Table  # what --only leaves of it
    where: Overrides

    def shown(self, filled: Json) -> Json:
        """What --only leaves of the filled whole."""
        from dimred.report.tables.excerpt import excerpt

        return excerpt(filled, self.whole, self.table) if self.table.only else filled


def table(arguments: list[str]) -> int:
    folder = option(arguments, "--runs")
    form = option(arguments, "--format", "md|latex|csv|json") or "md"
    from dimred.report.runs import find_runs
    from dimred.report.tables.fill import fill
    from dimred.report.tables.formats import FORMATS

    if form not in FORMATS:
        raise UserError(f"unknown format {form!r}. {nearest(form, FORMATS)}")
    if not arguments:
        print(listed())
        return 0
    asked = request(arguments, "dimred table [NAME] [--runs DIR] [--format md|latex|csv|json]")
    outputs = folder or asked.where.get("outputs", "outputs")
    place = Path(outputs).expanduser()
    runs = (
        [] if outputs == "outputs" and not place.exists() else find_runs(place)
    )  # nothing has been run yet
    where = asked.where | ({"outputs": str(outputs_of(place))} if folder else {})
    print(FORMATS[form](asked.shown(fill(asked.whole, runs, where))), end="")
    return 0


def outputs_of(place: Path) -> Path:
    """Where runs go so that they are in this folder: runs lie in OUTPUTS/runs."""
    return next((path.parent for path in (place, *place.parents) if path.name == "runs"), place)


def listed() -> str:
    from dimred.report.tables.published import raw_table

    rows = [(name, raw_table(name)["title"]) for name in names("table")]
    return columns(("table", f"what it is (more in {conf() / 'table'})"), rows)


def request(arguments: list[str], usage: str) -> Request:
    """The table that the arguments ask for, and what they say of where and how to compute."""
    from dimred.report import compose
    from dimred.report.tables.excerpt import only
    from dimred.report.tables.published import read_table

    usage = f"{usage} [--seeds N or N,N,...] [--scale FRACTION] [--only REGEX] [--config-dir DIR] [KEY=VALUE ...]"
    seeds, scale, some, own = (
        option(arguments, name, value)
        for name, value in (
            ("--seeds", "N (how many) or N,N,..."),
            ("--scale", "FRACTION"),
            ("--only", "REGEX"),
            ("--config-dir", "DIR"),
        )
    )
    flags(arguments, options=re.findall(r"--[a-z-]+", usage))  # none is left that could be
    typed = compose.split([argument for argument in arguments if "=" in argument])
    given = [argument for argument in arguments if "=" not in argument]
    if len(given) != 1:
        raise UserError(
            f"usage: {usage} (got {' '.join(given) or 'no name'}). dimred table lists the tables"
        )
    where = {key: value for key, value in typed.items() if re.split("[./]", key)[0] in WHERE}
    if own:
        folder = own_folder(own)
        compose.folders[:] = [folder]
        key, _, where_it_is = search_path(folder).partition("=")
        where[key] = where_it_is
    changes = {key: value for key, value in typed.items() if key not in where}
    for key in changes:
        if key == "seed":
            raise UserError("a table has seeds of its own. Others: --seeds 0,1,2")
        if key.partition(".")[0] not in (*GROUPS, "sparsity", "include", "exclude"):
            raise UserError(
                f"unknown key {key}. {nearest(key, {*GROUPS, *NOT_DESCRIPTIVE, 'include', 'exclude'})}"
            )
    whole = read_table(
        given[0], compose.Change(scale_of(scale), tuple(changes.items())), seeds_of(seeds)
    )
    return Request(whole, only(whole, some) if some else whole, where)


def scale_of(text: str | None) -> float:
    try:
        scale = 1.0 if text is None else float(text)
    except ValueError:
        scale = -1.0
    if not 0 < scale <= 1:
        raise UserError(
            f"--scale {text} is not allowed. It must be a fraction of the recipe's length, in (0, 1]"
        )
    return scale


def seeds_of(text: str | None) -> list[int] | None:
    """0,1,2, or how many: 3."""
    if text is None:
        return None
    if text.strip() == "0":
        raise UserError(
            "--seeds 0 is none: one number is how many. Seed 0 alone: --seeds 1; any one alone: --seeds 7,"
        )
    try:
        seeds = (
            [int(seed) for seed in text.split(",") if seed]
            if "," in text
            else list(range(int(text)))
        )
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        raise UserError(
            f"--seeds {text} is not allowed. It must be how many (3), or which ones (0,1,2; of one: 7,)"
        )
    return list(dict.fromkeys(seeds))
