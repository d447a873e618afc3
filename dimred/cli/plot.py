"""dimred plot: draw pictures of runs, and a page with all of them."""

from __future__ import annotations

import atexit
import gc
import importlib.util
import logging
from argparse import Namespace
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from dimred.cli.commands import Parser
from dimred.cli.status import row
from dimred.errors import UserError, first_lines, nearest
from dimred.files import folder_to_write, is_url
from dimred.garbage import uncollected

if TYPE_CHECKING:
    from dimred.report.pictures.picture import Picture
    from dimred.report.pictures.points import Setting
    from dimred.report.pictures.style import Look

log = logging.getLogger("dimred")
PICTURES = (
    *("sparsity", "storage", "flops", "time", "step", "inference"),
    *("layers", "support", "history", "curves", "overview"),
)
OF_ONE_RUN = ("masks", "weights")
NAMES = (*PICTURES, *OF_ONE_RUN)
MOST_RUNS = 24  # of which such pictures are drawn at once
FORMATS = ("svg", "dark.svg", "png", "pdf")
NEEDS = ("matplotlib", "jinja2", "itables")  # the extra "plot"
MANY = 9  # lines about runs that are not drawn


def parser() -> Parser:
    parser = Parser(
        "plot",
        "[PICTURE ...] [--runs DIR ...] [--out DIR] [OPTION ...]",
        "masks|weights RUN ... [OPTION ...]",
        "--x NUMBER [--y NUMBER] [--by COLUMN] [OPTION ...]",
        summary="Draw pictures of runs, or any number against any other; without a name, all of "
        "them.",
        more="overview is a page with all runs and all pictures. The points of a picture are "
        "written beside it, as .csv. NUMBER and COLUMN: those of dimred runs --format csv.",
    )
    about = f"what to draw: {', '.join(NAMES)}; or where the runs are, as in --runs"
    parser.add_argument("words", nargs="*", default=[], metavar="PICTURE", help=about)
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
    parser.add_argument("--format", choices=FORMATS, help="default: svg, for --paper pdf")
    parser.add_argument("--x", metavar="NUMBER", help="the number of the horizontal axis")
    parser.add_argument(
        "--y", metavar="NUMBER", help="the number of the vertical axis (default: test_accuracy)"
    )
    parser.add_argument("--by", metavar="COLUMN", help="what has a colour (default: method)")
    parser.add_argument(
        "--paper", action="store_true", help="as wide as a column, without title and caption"
    )
    parser.add_argument(
        "--style", metavar="FILE", help="a style file of matplotlib: fonts, sizes, colours"
    )
    return parser


def parse(arguments: list[str]) -> Namespace:
    """Pictures and runs may be named in any order, among the options. A word after --runs is a
    picture only if no folder has its name."""
    given = parser().parse(arguments)
    words, folders = given.words, given.runs or []
    named = [word for word in folders if word in NAMES and not Path(word).is_dir()]
    given.picture = list(dict.fromkeys(word for word in [*words, *named] if word in NAMES))
    runs = [word for word in words if word not in NAMES]
    for word in runs:
        if not is_place(word):
            hint = nearest(word, NAMES)
            raise UserError(f"{word!r} is no picture, and no folder of runs. {hint}")
    given.runs = [*runs, *(word for word in folders if word not in named)] or ["outputs/runs"]
    given.out = folder_to_write(given.out, "--out")
    if not given.x and (given.y or given.by):
        raise UserError("--y and --by need --x: dimred plot --x training_flops --y test_accuracy")
    if given.paper and "overview" in given.picture:
        raise UserError("--paper draws pictures, and overview is a page. Name them separately")
    single, urls = of_one_run(given), [place for place in given.runs if is_url(place)]
    if single and urls:
        raise UserError(
            f"{' and '.join(single)} read folders alone, and {urls[0]} is a URL. Copy the runs "
            "into a folder"
        )
    return given


def of_one_run(given: Namespace) -> list[str]:
    return [name for name in given.picture if name in OF_ONE_RUN]


def is_place(word: str) -> bool:
    """Whether a word names a folder, which may be missing."""
    return "/" in word or Path(word).expanduser().is_dir()


def run(arguments: list[str]) -> int:
    given = parse(arguments)
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise UserError(
            f"pictures need {' and '.join(missing)}, which are not installed. Install them: "
            "pip install 'dimred[plot]'"
        )
    # looking for cycles among ten thousand runs took nearly half of the time, and at the end of the
    # process another second
    atexit.register(gc.freeze)
    with uncollected():
        return draw(given)


def draw(given: Namespace) -> int:
    """Find the runs, and write their pictures. UserError if none is finished."""
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
    single = of_one_run(given)
    if single and len(done) > MOST_RUNS:
        raise UserError(
            f"{' and '.join(single)} are pictures of single runs, and there are {len(done)}. Name "
            f"up to {MOST_RUNS} of them: dimred plot {single[0]} RUN"
        )
    given.unfinished = [row(run) for run in others if run.state == "unfinished"]
    settings, doubles = settings_of(done)
    notes += doubles
    for line in first_lines(notes, MANY):
        log.warning("%s", line)
    return write_pictures(given, settings, notes)


def write_pictures(given: Namespace, settings: Sequence[Setting], notes: list[str]) -> int:
    """Write the files and print their paths. UserError if a picture that was named is empty."""
    from dimred.report.pictures.catalogue import DRAWINGS, pictures

    look, wanted = look_of(given), wanted_of(given)
    drawn: dict[str, list[Picture]] = {}
    of_page = DRAWINGS if "overview" in wanted else ()
    for kind in dict.fromkeys([*of_page, *wanted]):
        if kind == "overview":
            continue
        drawn[kind], lines = pictures(kind, settings, look.colours)
        notes += lines
        if kind in wanted:
            write_files(given, drawn[kind], lines, look)
    empty = [kind for kind in given.picture if not drawn.get(kind, True)]
    if given.x:
        of_numbers, lines = numbers_against_numbers(given, settings, look)
        write_files(given, of_numbers, lines, look)
        if not of_numbers:
            empty.append(f"--x {given.x}")
    if "overview" in wanted:
        from dimred.files import write
        from dimred.report.pictures.overview import page

        path = given.out / "overview.html"
        of_settings = chain.from_iterable(drawn[kind] for kind in DRAWINGS)
        write(path, page(settings, list(of_settings), notes, given.unfinished))
        print(path)
    if empty:
        raise UserError(f"nothing to draw for {', '.join(empty)}: see the lines above")
    return 0


def wanted_of(given: Namespace) -> Sequence[str]:
    if given.picture or given.x:
        return given.picture
    return [name for name in PICTURES if not (given.paper and name == "overview")]


def look_of(given: Namespace) -> Look:
    from dimred.report.pictures.style import PAPER, PLAIN, read_style

    look = PAPER if given.paper else PLAIN
    return look.with_rc(read_style(Path(given.style).expanduser())) if given.style else look


def numbers_against_numbers(
    given: Namespace, settings: Sequence[Setting], look: Look
) -> tuple[list[Picture], list[str]]:
    from dimred.report.numbers import number_named, require_column
    from dimred.report.pictures.versus import versus
    from dimred.report.pictures.versus_marks import Request

    runs = list(chain.from_iterable(setting.runs for setting in settings))
    x, y = number_named(given.x, runs), number_named(given.y or "test_accuracy", runs)
    by = given.by or "method"
    require_column(by, runs)
    return versus(settings, Request(x, y, by), look.colours)


def write_files(
    given: Namespace, drawn: Sequence[Picture], notes: Sequence[str], look: Look
) -> None:
    """Write each picture, and its points beside it, and print the paths."""
    from dimred.files import write

    for line in notes:
        log.warning("%s", line)
    ending = "-paper" if given.paper else ""
    form = given.format or ("pdf" if given.paper else "svg")
    for picture in drawn:
        path = given.out / f"{picture.name}{ending}.{form}"
        write(path, picture.file(form, look))
        points = given.out / f"{picture.name}.csv"
        write(points, picture.csv())
        print(path, points, sep="\n")
