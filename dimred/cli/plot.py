"""dimred plot: draw pictures of runs, and a page with all of them."""

from __future__ import annotations

import importlib.util
import logging
from argparse import Namespace
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from dimred.cli.commands import Parser
from dimred.errors import UserError, first_lines
from dimred.storage.files import folder_to_write

if TYPE_CHECKING:
    from dimred.report.pictures.points import Setting

log = logging.getLogger("dimred")
PICTURES = (
    *("sparsity", "storage", "flops", "time", "step", "inference"),
    *("layers", "support", "curves", "overview"),
)
FORMATS = ("svg", "dark.svg", "png", "pdf")
NEEDS = ("matplotlib", "jinja2", "itables")  # the extra "plot"
MANY = 9  # lines about runs that are not drawn


def parser() -> Parser:
    parser = Parser(
        "plot",
        "[PICTURE ...] [--runs DIR ...] [--out DIR] [--format NAME]",
        summary="Draw pictures of runs; without a name, all of them.",
        more="overview is a page with all runs and all pictures.",
    )
    parser.add_argument("picture", nargs="*", default=[], choices=PICTURES, help="what to draw")
    parser.add_argument(
        "--runs",
        nargs="+",
        action="extend",
        metavar="DIR",
        help="where the runs are, or single runs (default: outputs/runs)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="outputs/pictures",
        help="where to write (default: outputs/pictures)",
    )
    parser.add_argument("--format", choices=FORMATS, default="svg", help="default: svg")
    return parser


def parse(arguments: list[str]) -> Namespace:
    """A picture may be named after the folders of --runs, too, unless a folder has its name."""
    given = parser().parse(arguments)
    words = given.runs or []
    named = [word for word in words if word in PICTURES and not Path(word).is_dir()]
    folders = [word for word in words if word not in named] or ["outputs/runs"]
    given.picture = list(dict.fromkeys([*given.picture, *named]))
    given.runs = folders
    given.out = folder_to_write(given.out, "--out")
    return given


def run(arguments: list[str]) -> int:
    given = parse(arguments)
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise UserError(
            f"pictures need {' and '.join(missing)}, which are not installed. Install them: "
            "pip install 'dimred[plot]'"
        )
    from dimred.report.pictures.points import settings_of
    from dimred.report.remote import place_of
    from dimred.report.runs import find_in

    found = find_in(map(place_of, given.runs))
    done = [run for run in found if run.state == "done"]
    others = [run for run in found if run.state != "done"]
    notes = [f"{run.folder}: {run.state} ({run.why})" for run in others]
    if not done:
        where = ", ".join(map(str, given.runs))
        what_to_do = "Train some with dimred train, or name another folder with --runs"
        raise UserError(
            "\n  ".join([f"no finished run in {where}. {what_to_do}", *first_lines(notes, MANY)])
        )
    settings, doubles = settings_of(done)
    notes += doubles
    for line in first_lines(notes, MANY):
        log.warning("%s", line)
    return write_pictures(given, settings, notes)


def write_pictures(given: Namespace, settings: Sequence[Setting], notes: list[str]) -> int:
    """Write the files and print their paths. UserError if a picture that was named is empty."""
    from dimred.report.pictures.catalogue import DRAWINGS, pictures
    from dimred.storage.files import write

    wanted = given.picture or PICTURES
    drawn, empty = {}, []
    for kind in DRAWINGS if "overview" in wanted else wanted:
        drawn[kind], lines = pictures(kind, settings)
        notes += lines
        if kind in wanted:
            for line in lines:
                log.warning("%s", line)
            if not drawn[kind]:
                empty.append(kind)
            for picture in drawn[kind]:
                path = given.out / f"{picture.name}.{given.format}"
                write(path, picture.file(given.format))
                print(path)
    if "overview" in wanted:
        from dimred.report.pictures.overview import page

        path = given.out / "overview.html"
        write(path, page(settings, list(chain.from_iterable(drawn.values())), notes))
        print(path)
    if given.picture and empty:
        raise UserError(f"nothing to draw for {', '.join(empty)}: see the lines above")
    return 0
