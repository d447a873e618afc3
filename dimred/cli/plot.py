"""dimred plot: pictures of runs, and a page of them all."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dimred.errors import UserError, nearest

if TYPE_CHECKING:
    from dimred.report.pictures.points import Setting

log = logging.getLogger("dimred")
WHAT = ("sparsity", "storage", "flops", "layers", "support", "curves", "overview")
FORMATS = ("svg", "dark.svg", "png", "pdf")
USAGE = "dimred plot [WHAT ...] [--runs DIR|RUN ...] [--out DIR] [--format svg|dark.svg|png|pdf]"
NEEDS = ("matplotlib", "jinja2", "itables")  # the extra "plot"
MANY = 9  # lines on what is not drawn, in a terminal


def plot(arguments: list[str]) -> int:
    what, folders, out, form = parse(arguments)
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise UserError(
            f"pictures need {' and '.join(missing)}, not installed here: pip install 'dimred[plot]'"
        )
    from dimred.report.pictures.points import settings_of
    from dimred.report.runs import find_runs

    found = {run.folder.resolve(): run for folder in folders for run in find_runs(folder)}
    done = [run for run in found.values() if run.state == "done"]
    notes = [
        f"{run.folder}: {run.state} ({run.why})" for run in found.values() if run.state != "done"
    ]
    if not done:
        where = ", ".join(map(str, folders))
        what_to_do = "Train some with dimred train, or name another folder with --runs"
        raise UserError("\n  ".join([f"no finished run in {where}. {what_to_do}", *first(notes)]))
    settings, doubles = settings_of(done)
    notes += doubles
    for line in first(notes):
        log.warning("%s", line)
    return draw(what or WHAT, settings, notes, out, form, named=bool(what))


def draw(
    what: Sequence[str],
    settings: Sequence[Setting],
    notes: list[str],
    out: Path,
    form: str,
    named: bool,
) -> int:
    """Write the files and print their paths. UserError if one was named and there is nothing to
    draw in it."""
    from dimred.report.pictures.catalogue import DRAWINGS, pictures
    from dimred.storage.files import write

    drawn, empty = {}, []
    for kind in DRAWINGS if "overview" in what else what:
        drawn[kind], lines = pictures(kind, settings)
        notes += lines
        if kind in what:
            for line in lines:
                log.warning("%s", line)
            empty += [kind] * (not drawn[kind])
            for picture in drawn[kind]:
                write(path := out / f"{picture.name}.{form}", picture.file(form))
                print(path)
    if "overview" in what:
        from dimred.report.pictures.overview import page

        write(
            path := out / "overview.html",
            page(settings, [p for some in drawn.values() for p in some], notes),
        )
        print(path)
    if named and empty:
        raise UserError(f"nothing to draw for {', '.join(empty)}, see above")
    return 0


def parse(arguments: list[str]) -> tuple[list[str], list[Path], Path, str]:
    """What, the folders of runs, where to, the format. Every --runs takes all folders up to the
    next option."""
    values: dict[str, list[str]] = {"": [], "--runs": [], "--out": [], "--format": []}
    into = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument.startswith("-"):
            if name not in values:
                hint = nearest(name, ["--runs", "--out", "--format", "--debug"])
                raise UserError(f"unknown option {name}. {hint} Usage: {USAGE}")
            into = "" if equals else name
            values[name] += [value] if equals else []
        else:
            # a WHAT may stand behind options, too, unless a folder is called so
            values["" if argument in WHAT and not Path(argument).is_dir() else into].append(
                argument
            )
            into = into if into == "--runs" else ""
    for option in ("--out", "--format"):
        if len(values[option]) > 1:
            raise UserError(
                f"{option} takes one value (got {' '.join(values[option])}). Usage: {USAGE}"
            )
    if into in ("--out", "--format") or (into == "--runs" and not values["--runs"]):
        raise UserError(f"{into} needs a value. Usage: {USAGE}")
    for word in values[""]:
        if word not in WHAT:
            raise UserError(f"unknown picture {word!r}. {nearest(word, WHAT)}")
    form = (values["--format"] or ["svg"])[0]
    if form not in FORMATS:
        raise UserError(f"unknown format {form!r}. {nearest(form, FORMATS)}")
    folders = [Path(folder).expanduser() for folder in values["--runs"] or ["outputs/runs"]]
    out = Path((values["--out"] or ["outputs/pictures"])[0]).expanduser()
    return list(dict.fromkeys(values[""])), folders, out, form


def first(lines: Sequence[str]) -> list[str]:
    return [*lines[:MANY], *([f"and {len(lines) - MANY} more"] if len(lines) > MANY else [])]
