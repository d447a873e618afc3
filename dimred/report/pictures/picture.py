"""A picture of a setting, and its files."""

from __future__ import annotations

import csv
import gc
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib import rcParams
from matplotlib.figure import Figure

from dimred.report.pictures.sheet import Sheet
from dimred.report.pictures.style import DARK, PLAIN, Look, styled

WIDE, NARROW = 10.0, 3.8  # inches, 72 points each: a page, and a phone held upright
Row = Mapping[str, object]


@dataclass(frozen=True)
class Picture:
    """A picture of a setting (its slug). draw: onto an empty sheet. caption: full sentences.
    points: the numbers that are drawn, in flat rows."""

    kind: str
    setting: str
    title: str
    caption: str
    draw: Callable[[Sheet], Figure]
    points: Sequence[Row]

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.setting}"

    def figure(self, width: float, captioned: bool = True) -> Figure:
        """The figure, in the current style of matplotlib."""
        title, caption = (self.title, self.caption) if captioned else ("", "")
        return self.draw(Sheet(width, title, caption))

    def file(self, form: str, look: Look = PLAIN) -> bytes:
        """svg, dark.svg (for a dark page), png or pdf: the same bytes for the same picture."""
        if form != "dark.svg":
            return self._saved(look, WIDE, form)
        svg = self._saved(look.with_rc({"savefig.facecolor": "#0d1117"}), WIDE, "svg").decode()
        return re.sub(r"#[0-9a-f]{6}(?=[;\"])", lambda m: DARK.get(m[0], m[0]), svg).encode()

    def csv(self) -> bytes:
        """The points that are drawn."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.points[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.points)
        return text.getvalue().encode()

    def inline(self, width: float, name: str) -> str:
        """An SVG for a page: letters are text, the background is transparent, and colours are
        variables of the page's style sheet (--c1f2328). `name` makes its identifiers unique."""
        look = PLAIN.with_rc({"svg.fonttype": "none", "savefig.facecolor": "none"})
        svg = self._saved(look, width, "svg").decode()
        svg = svg[svg.index("<svg") :]
        for pattern, replacement in (
            (r"<metadata>.*?</metadata>", ""),
            (r"<g id=\"[^\"]*\"", "<g"),
            (r"<g ?/>", ""),
            (r"\n\s+", "\n"),
        ):
            svg = re.sub(pattern, replacement, svg, flags=re.S)
        # tenths of a point are enough
        svg = re.sub(r" (d|x|y)=\"[^\"]*\"", lambda m: re.sub(r"(\.\d)\d+", r"\1", m[0]), svg)
        svg = re.sub(r" d=\"([^\"]*)\"", lambda m: f' d="{short_path(m[1])}"', svg)
        svg = re.sub(r" transform=\"rotate\(-0 [^\"]*\"", "", svg)
        svg = without_plain_groups(svg)
        svg = re.sub(
            r"#[0-9a-f]{6}(?=[;\"])", lambda m: f"var(--c{m[0][1:]})" if m[0] in DARK else m[0], svg
        )
        numbers: dict[str, int] = {}
        svg = re.sub(
            r"( id=\"|url\(#|href=\"#)([^\")]*)",
            lambda m: f"{m[1]}{name}-{numbers.setdefault(m[2], len(numbers))}",
            svg.replace("xlink:href", "href"),
        )
        # each style becomes a class; only styles of tags, as text from a run is not a style
        tags = re.compile(r"(<[a-z][^<>]*?) style=\"([^\"]*)\"")
        texts = dict.fromkeys(text for _, text in tags.findall(svg))
        styles = {text: f"{name}-s{i}" for i, text in enumerate(texts)}
        svg = tags.sub(lambda m: f'{m[1]} class="{styles[m[2]]}"', svg)
        sheet = "".join(f".{own}{{{text}}}" for text, own in styles.items())
        return svg.replace("</style>", f"{sheet}</style>", 1)

    def _saved(self, look: Look, width: float, form: str) -> bytes:
        dateless: dict[str, dict[str, object]] = {
            "svg": {"Date": None, "Creator": None},
            "png": {"Software": None},
            "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        }
        content = io.BytesIO()
        with styled(look.rc):
            if look.has_width:
                width = rcParams["figure.figsize"][0]
            figure = self.figure(width, look.captioned)
            figure.savefig(content, format=form, metadata=dateless[form])
        # a figure is part of cycles, and many are drawn while nothing else collects garbage
        del figure
        gc.collect(0)
        return content.getvalue()


def short_path(d: str) -> str:
    """The same path in fewer letters: numbers after M or L are lines by themselves."""
    words = re.sub(r"\.0(?!\d)", "", " ".join(d.split()))
    words = re.sub(r"[ML] [^A-Za-z]*(?:L [^A-Za-z]*)+", without_repeated_l, words)
    return re.sub(r" ?([A-Za-z]) ?", r"\1", words).replace(" -", "-")


def without_repeated_l(found: re.Match[str]) -> str:
    return found[0][0] + found[0][1:].replace("L ", "")


def without_plain_groups(svg: str) -> str:
    """The same SVG without groups that have no attribute."""
    parts, is_kept = list[str](), list[bool]()
    for part in re.split(r"(<g(?: [^>]*)?>|</g>)", svg):
        if part == "<g>":
            is_kept.append(False)
        elif part == "</g>":
            if is_kept.pop():
                parts.append(part)
        else:
            if part.startswith("<g ") and not part.endswith("/>"):
                is_kept.append(True)
            parts.append(part)
    return re.sub(r"\n+", "\n", "".join(parts))
