"""The style of pictures, light and dark, and their files."""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from matplotlib import style as themes
from matplotlib.figure import Figure

WIDE, NARROW = 10.0, 3.8  # inches, 72 points each: a page, and a phone held upright
INK, MUTED, GRID, FAINT = "#1f2328", "#59636e", "#e4e7eb", "#c6ccd4"
#: distinguishable for colour-blind readers (at least 9 in 100 OKLab, red-green by Machado et al.
#: 2009), with a contrast of at least 3:1 to the background
COLOURS = "#2749d4", "#d48019", "#0d846c", "#7a0f2b", "#b96db4", "#5592fe", "#3b2068"
MARKERS = "o", "s", "^", "D", "v", "P", "X", "p", "h"  # with 7 colours: 63 styles
SHADES = (
    "#58c765",
    "#2cb17e",
    "#1f988b",
    "#27808e",
    "#31678e",
    "#3e4a89",
    "#472c7a",
    "#46085c",
)  # viridis
#: the colours on a dark page
DARK = {
    INK: "#e6edf3",
    MUTED: "#9aa4af",
    GRID: "#2a3038",
    FAINT: "#47505b",
    **dict(
        zip(
            COLOURS,
            ("#5f80ff", "#fd983c", "#41c889", "#d8304a", "#ffa8c8", "#49d9ff", "#995ec2"),
            strict=True,
        )
    ),
    **dict(
        zip(
            SHADES,
            (
                "#306a8e",
                "#26818e",
                "#1f978b",
                "#27ad81",
                "#4cc26c",
                "#81d34d",
                "#c0df25",
                "#fde725",
            ),
            strict=True,
        )
    ),
}
RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.0,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
    "figure.facecolor": "white",
    "axes.facecolor": "none",
    "savefig.facecolor": "white",
    "svg.hashsalt": "dimred",
    "pdf.fonttype": 42,
    "savefig.dpi": 160,
}


class Style(NamedTuple):
    colour: str
    marker: str


@dataclass(frozen=True)
class Picture:
    """A picture of a setting (its slug). draw: the figure, by its width in inches. caption: full
    sentences."""

    kind: str
    setting: str
    title: str
    caption: str
    draw: Callable[[float], Figure]

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.setting}"

    def file(self, form: str) -> bytes:
        """svg, dark.svg (for a dark page), png or pdf: the same bytes for the same picture."""
        if form != "dark.svg":
            return self._saved(WIDE, form)
        svg = self._saved(WIDE, "svg", {"savefig.facecolor": "#0d1117"}).decode()
        return re.sub(r"#[0-9a-f]{6}(?=[;\"])", lambda m: DARK.get(m[0], m[0]), svg).encode()

    def inline(self, width: float, name: str) -> str:
        """An SVG for a page: letters are text, the background is transparent, and colours are
        variables of the page's style sheet (--c1f2328). `name` makes its identifiers unique."""
        svg = self._saved(
            width, "svg", {"svg.fonttype": "none", "savefig.facecolor": "none"}
        ).decode()
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
        svg = re.sub(
            r"#[0-9a-f]{6}(?=[;\"])", lambda m: f"var(--c{m[0][1:]})" if m[0] in DARK else m[0], svg
        )
        svg = re.sub(r"( id=\"|url\(#|href=\"#)", lambda m: f"{m[1]}{name}-", svg)
        # each style becomes a class; only styles of tags, as text from a run is not a style
        tags = re.compile(r"(<[a-z][^<>]*?) style=\"([^\"]*)\"")
        texts = dict.fromkeys(text for _, text in tags.findall(svg))
        styles = {text: f"{name}-s{i}" for i, text in enumerate(texts)}
        svg = tags.sub(lambda m: f'{m[1]} class="{styles[m[2]]}"', svg)
        sheet = "".join(f".{own}{{{text}}}" for text, own in styles.items())
        return svg.replace("</style>", f"{sheet}</style>", 1)

    def _saved(
        self, width: float, form: str, changes: Mapping[str, object] = MappingProxyType({})
    ) -> bytes:
        dateless: dict[str, dict[str, object]] = {
            "svg": {"Date": None, "Creator": None},
            "png": {"Software": None},
            "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        }
        content = io.BytesIO()
        with styled(changes):
            self.draw(width).savefig(content, format=form, metadata=dateless[form])
        return content.getvalue()


@contextmanager
def styled(changes: Mapping[str, object]) -> Iterator[None]:
    """Draw in this style, independent of the user's matplotlibrc."""
    with themes.context(["default", {**RC, **changes}]), warnings.catch_warnings():
        # a name may have letters that the font lacks
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def styles_of(methods: Sequence[str], panels: Sequence[Sequence[str]] = ()) -> dict[str, Style]:
    """A style for every method, the same in all pictures of a command.

    Methods that share a panel differ in colour, as long as there are enough. The method with the
    fewest colours left chooses next (DSATUR)."""
    coloured = [method for method in methods if method != "dense"]
    places = {method: i for i, method in enumerate(coloured)}
    near: dict[str, set[str]] = {method: set() for method in places}
    for panel in panels:
        for method in places.keys() & set(panel):
            near[method] |= set(panel)
    count = len(COLOURS) * len(MARKERS)
    every = [Style(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i in range(count)]
    styles = {"dense": Style(INK, "*")}
    while left := [method for method in places if method not in styles]:
        around = {}
        for method in left:
            neighbours = near[method] & styles.keys()
            around[method] = Counter(styles[other].colour for other in neighbours)
        method, used = max(left, key=lambda m: len(around[m])), Counter(styles.values())
        start = places[method] % len(every)
        styles[method] = min(
            every[start:] + every[:start], key=lambda s: (around[method][s.colour], used[s])
        )
    return styles


def shades(sparsities: Sequence[float | None]) -> dict[float | None, str]:
    """Shades for ascending sparsities: sparser is darker (on a dark page, brighter)."""
    last, darkest = len(sparsities) - 1, len(SHADES) - 1
    found = {}
    for i, sparsity in enumerate(sparsities):
        lightness = 0.9 * (last - i) / max(1, last)
        found[sparsity] = SHADES[round(darkest * (1 - lightness))]
    return found
