"""The overview page of runs: a single HTML file without external resources."""

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
from dimred.report.measures import number
from dimred.report.pictures.picture import NARROW, WIDE, Picture
from dimred.report.pictures.points import Setting, plain, sparsity
from dimred.report.pictures.sheet import per_cent, with_prefix
from dimred.report.pictures.style import DARK
from dimred.report.runs import Run

HERE = Path(__file__).parent
MOST = 20_000  # characters of a configuration

FILTERS = ("method", "family", "sparsity", "data", "model")


class Cell(NamedTuple):
    text: str
    order: float | str  # the key for sorting


class Row(NamedTuple):
    """A run. about: the values to filter by; config: the text of config.yaml; facts: other values,
    as (name, value)."""

    method: str
    title: str
    about: Mapping[str, str]
    cells: Sequence[Cell]
    config: str
    facts: Sequence[tuple[str, str]]


def page(settings: Sequence[Setting], pictures: Sequence[Picture], notes: Iterable[str]) -> bytes:
    """The bytes of the page. Text from runs is escaped by the template, and a content security
    policy allows only the page's own script."""
    rows: list[Row] = []
    figures: dict[str, list[dict[str, str]]] = {}
    for setting in settings:
        for point in setting.points:
            rows += [row_of(run, point.method, point.family, setting) for run in point.runs]
        own = [
            (i, picture) for i, picture in enumerate(pictures) if picture.setting == setting.slug
        ]
        figures[setting.slug] = [figure(picture, i) for i, picture in own]
    library, styles = data_tables()
    # nothing of a run is in the script
    script = Markup(f"{library}\n{(HERE / 'overview.js').read_text()}")
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
            choices={key: choices(rows, key) for key in FILTERS},
            digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            library_styles=Markup(styles),
            colours=[(colour[1:], colour, dark) for colour, dark in DARK.items()],
            figures=figures,
        )
        .encode()
    )


def figure(picture: Picture, number: int) -> dict[str, str]:
    """A picture for wide and for narrow screens. matplotlib has escaped its text."""
    return {
        "title": picture.title,
        "caption": picture.caption,
        "wide": Markup(picture.inline(WIDE, f"w{number}")),
        "narrow": Markup(picture.inline(NARROW, f"n{number}")),
    }


def data_tables() -> tuple[str, str]:
    """The script of DataTables from itables, as a module for an inline script tag, and its
    styles."""
    path = Path(itables.__file__).parent / "html" / "dt_bundle.js"
    try:
        script, styles = path.read_text(), path.with_suffix(".css").read_text()
    except OSError as error:
        raise UserError(
            f"{error.filename} is missing. Install itables again: "
            "pip install --force-reinstall itables"
        ) from None
    exported = re.search(r"export\s*\{[^}]*?(\w+) as default[^}]*\};?", script)
    if not exported:
        raise UserError(
            f"itables {itables.__version__} bundles DataTables in an unknown format. Install "
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
    requested = "" if s is None else f", sparsity {per_cent(s)}"
    return Row(
        method,
        f"{method}{requested}, seed {run.seed}: {setting.title}",
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
    if len(text) <= MOST:
        return text
    return f"{text[:MOST]}\n… ({len(text) - MOST} more characters in config.yaml)"


def facts(run: Run) -> Iterable[tuple[str, str]]:
    yield "folder", str(run.folder)
    command: Any = run.result.get("command")
    if isinstance(command, list):
        yield "command", " ".join(map(str, command))
    for key in ("device", "python", "versions", "commit", "collapsed", "measures", "storage"):
        value = run.result.get(key)
        if isinstance(value, dict):
            value = [f"{name} {one}" for name, one in value.items()]
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        if value:
            yield key, str(value)


def choices(rows: Sequence[Row], key: str) -> list[str]:
    """The values of a filter: sparsities ascending, others in the order of the table."""
    values = list(dict.fromkeys(row.about[key] for row in rows))
    if key != "sparsity":
        return values
    numbers = sorted(set(values) - {"none"}, key=lambda text: float(text.split()[0]))
    return [*numbers, *(["none"] if "none" in values else [])]
