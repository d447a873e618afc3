"""The overview page of runs: a single HTML file without external resources."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import itables
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dimred.errors import UserError
from dimred.report.all_cores import on_all_cores
from dimred.report.pictures.overview_data import comparison_data
from dimred.report.pictures.overview_rows import (
    COLUMNS,
    Group,
    Row,
    choices,
    group_of,
    mean_row,
    rows_of,
)
from dimred.report.pictures.picture import NARROW, WIDE, Picture
from dimred.report.pictures.points import Setting
from dimred.report.pictures.style import DARK

HERE = Path(__file__).parent
LARGE = 150_000  # characters of a picture
FILTERS = ("method", "family", "sparsity", "data", "model")


def page(
    settings: Sequence[Setting],
    pictures: Sequence[Picture],
    notes: Iterable[str],
    unfinished: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """The bytes of the page. `unfinished`: rows of `dimred status`. Text from runs is escaped by
    the template, and a content security policy allows only the page's own script."""
    rows, means, groups = list[Row](), list[Row](), list[Group]()
    drawn = on_all_cores(figure, [*enumerate(pictures)])
    figures: dict[str, list[dict[str, str]]] = {}
    for setting in settings:
        for point in setting.points:
            rows += rows_of(point, setting, len(groups))
            means.append(mean_row(point, setting, len(groups)))
            groups.append(group_of(point, setting))
        figures[setting.slug] = [each for each in drawn if each["setting"] == setting.slug]
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
            tables=[
                ("means", "Means over seeds", ["Method", "Sparsity %", "Seeds", *COLUMNS], means),
                ("runs", "Runs", ["Method", "Sparsity %", "Seed", *COLUMNS], rows),
            ],
            several=any(setting.apart for setting in settings),
            groups=groups,
            unfinished=unfinished,
            data=Markup(comparison_data(settings)),
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


def figure(numbered: tuple[int, Picture]) -> dict[str, str]:
    """A picture for wide and for narrow screens; a large one is the same on both. matplotlib has
    escaped its text."""
    number, picture = numbered
    wide, narrow = picture.inline(WIDE, f"w{number}"), ""
    if len(wide) <= LARGE:
        narrow = picture.inline(NARROW, f"n{number}")
    return {
        "setting": picture.setting,
        "title": picture.title,
        "caption": picture.caption,
        "wide": Markup(wide),
        "narrow": Markup(narrow),
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
