"""The overview of a folder of runs: one HTML file that needs nothing else, no network either."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import itables
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dimred.errors import UserError
from dimred.report.pictures.points import Setting, number, plain, sparsity
from dimred.report.pictures.sheet import per_cent, with_prefix
from dimred.report.pictures.style import DARK, NARROW, WIDE, Picture
from dimred.report.runs import Run

HERE = Path(__file__).parent
MOST = 20_000  # characters of a configuration that are shown


class Cell(NamedTuple):
    text: str
    order: float | str  # what it is sorted by


class Row(NamedTuple):
    """A run. about: what it is chosen by; text of config.yaml; what else is told: [(name,
    value)]."""

    method: str
    title: str
    about: Mapping[str, str]
    cells: Sequence[Cell]
    config: str
    facts: Sequence[tuple[str, str]]


def page(settings: Sequence[Setting], pictures: Sequence[Picture], notes: Iterable[str]) -> bytes:
    """The file. Whatever comes from runs is text: the template escapes it, and the page
    forbids the browser every script but its own two."""
    rows = [
        row_of(run, point.method, point.family, setting)
        for setting in settings
        for point in setting.points
        for run in point.runs
    ]
    library, styles = data_tables()
    script = Markup(f"{library}\n{(HERE / 'overview.js').read_text()}")  # ours, nothing of a run's
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return (
        environment.get_template("overview.html")
        .render(
            rows=rows,
            columns=["Method", *COLUMNS],
            settings=settings,
            notes=list(notes),
            script=script,
            choices={
                key: choices(rows, key) for key in ("method", "family", "sparsity", "data", "model")
            },
            digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            library_styles=Markup(styles),
            colours=[(colour[1:], colour, dark) for colour, dark in DARK.items()],
            figures={
                setting.slug: [
                    figure(picture, i)
                    for i, picture in enumerate(pictures)
                    if picture.setting == setting.slug
                ]
                for setting in settings
            },
        )
        .encode()
    )


def figure(picture: Picture, number: int) -> dict[str, str]:
    """For a page and for a phone. matplotlib has escaped what is written in it."""
    return {
        "title": picture.title,
        "caption": picture.caption,
        "wide": Markup(picture.inline(WIDE, f"w{number}")),
        "narrow": Markup(picture.inline(NARROW, f"n{number}")),
    }


def data_tables() -> tuple[str, str]:
    """The script of DataTables as itables bundles it, as a module that may stand inside HTML, and
    its styles."""
    path = Path(itables.__file__).parent / "html" / "dt_bundle.js"
    try:
        script, styles = path.read_text(), path.with_suffix(".css").read_text()
    except OSError as error:
        raise UserError(
            f"{error.filename} is missing. Install itables again: pip install --force-reinstall itables"
        ) from None
    exported = re.search(r"export\s*\{[^}]*?(\w+) as default[^}]*\};?", script)
    if not exported:
        raise UserError(
            f"itables {itables.__version__} bundles DataTables in another way than dimred knows. Install "
            "another version: pip install 'itables>=2.9,<3'"
        )
    script = script.replace(exported[0], f"const DataTable = {exported[1]};")
    return re.sub(r"<(?=!--|/?script)", r"\\x3C", script, flags=re.I), styles.replace("</", "<\\/")


# -- the table --------------------
def numeric(key: str, show: Callable[[float], str]) -> Callable[[Run], Cell]:
    def cell(run: Run) -> Cell:
        value = number(run.result, key)
        return Cell("–", "") if value is None else Cell(show(value), value)

    return cell


def accuracy_text(value: float) -> str:
    return f"{100 * value:.2f}"


COLUMNS: dict[str, Callable[[Run], Cell]] = {
    "Sparsity %": numeric("sparsity", lambda value: f"{100 * value:.4g}"),
    "Seed": lambda run: Cell(str(run.seed), run.seed),
    "Test accuracy %": numeric("test_accuracy", accuracy_text),
    "… at best validation epoch %": numeric("best_val_test_accuracy", accuracy_text),
    "Weights ever trained": numeric("trained_ever", lambda value: f"{value:,.0f}"),
    "Dim": numeric("dim", lambda value: f"{value:,.0f}"),
    "Nonzero %": numeric("density", lambda value: f"{100 * value:.4g}"),
    "Storage, bytes": numeric("storage_bytes", with_prefix),
    "Training FLOPs": numeric("training_flops", with_prefix),
    "… of dense": numeric("training_flops_relative", lambda value: f"{value:.3g}"),
    "Inference FLOPs": numeric("inference_flops", with_prefix),
    "… of dense, inference": numeric("inference_flops_relative", lambda value: f"{value:.3g}"),
    "Seconds": numeric("seconds", lambda value: f"{value:.1f}"),
}


def row_of(run: Run, method: str, family: str, setting: Setting) -> Row:
    s = sparsity(run)
    about = {
        "method": method,
        "family": family,
        "sparsity": "none" if s is None else per_cent(s),
        "data": plain(run.result.get("dataset")),
        "model": plain(run.result.get("model")),
    }
    asked = "" if s is None else f", sparsity {per_cent(s)}"
    return Row(
        method,
        f"{method}{asked}, seed {run.seed}: {setting.title}",
        about,
        [cell(run) for cell in COLUMNS.values()],
        config_of(run),
        list(facts(run)),
    )


def config_of(run: Run) -> str:
    try:
        text = (run.folder / "config.yaml").read_text(errors="replace")
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return (
        text
        if len(text) <= MOST
        else f"{text[:MOST]}\n… ({len(text) - MOST} more characters in config.yaml)"
    )


def facts(run: Run) -> Iterable[tuple[str, str]]:
    yield "folder", str(run.folder)
    command: Any = run.result.get("command")
    if isinstance(command, list):
        yield "command", " ".join(map(str, command))
    for key in ("device", "python", "versions", "commit", "collapsed", "measures", "storage"):
        if value := run.result.get(key):
            pairs = isinstance(value, dict) and ", ".join(
                f"{name} {one}" for name, one in value.items()
            )
            yield (
                key,
                pairs or (", ".join(map(str, value)) if isinstance(value, list) else str(value)),
            )


def choices(rows: Sequence[Row], key: str) -> list[str]:
    """The values to choose from, in the order of the table."""
    values = list(dict.fromkeys(row.about[key] for row in rows))
    return (
        sorted(
            values,
            key=lambda text: (text == "none", float(text.split()[0]) if text != "none" else 0),
        )
        if key == "sparsity"
        else values
    )
