"""The style of pictures, light and dark."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from matplotlib import rc_params_from_file, rcParams
from matplotlib import style as themes
from matplotlib.colors import to_hex

from dimred.errors import UserError, nearest

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
RC: dict[str, Any] = {
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


class Look(NamedTuple):
    """How files are drawn: changes to matplotlib's parameters, and whether there are a title and a
    caption. A width among the parameters replaces that of a page."""

    rc: Mapping[str, Any] = MappingProxyType({})
    captioned: bool = True

    @property
    def has_width(self) -> bool:
        return "figure.figsize" in self.rc

    @property
    def colours(self) -> Sequence[str]:
        """The colours of methods: those of axes.prop_cycle, if it is changed."""
        cycle = self.rc.get("axes.prop_cycle")
        if cycle is None or "color" not in cycle.keys:
            return COLOURS
        return [to_hex(colour) for colour in cycle.by_key()["color"]]

    def with_rc(self, rc: Mapping[str, Any]) -> Look:
        return self._replace(rc={**self.rc, **rc})


PLAIN = Look()
#: a column of a two-column paper
PAPER = Look({"figure.figsize": (3.35, 1), "font.size": 7.5, "savefig.dpi": 300}, captioned=False)


def read_style(path: Path) -> dict[str, Any]:
    """The parameters that a style file of matplotlib (.mplstyle) sets. UserError for a parameter
    that matplotlib lacks, or a value that it refuses."""
    try:
        lines = path.read_text().splitlines()
        found = rc_params_from_file(path, fail_on_error=True, use_default_template=False)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(
            f"--style {path} cannot be read ({' '.join(str(error).split())}). It must be a style "
            "file of matplotlib: lines like font.size: 8"
        ) from None
    for line in lines:
        key, colon, _ = line.partition("#")[0].partition(":")
        if key.strip() and not (colon and key.strip() in rcParams):
            hint = nearest(key.strip(), rcParams)
            raise UserError(f"--style {path}: unknown parameter {key.strip()!r}. {hint}")
    return {str(key): value for key, value in found.items()}


@contextmanager
def styled(changes: Mapping[str, Any]) -> Iterator[None]:
    """Draw in this style, independent of the user's matplotlibrc."""
    size = changes.get("font.size", RC["font.size"])
    letters = {key: RC[key] * size / RC["font.size"] for key in RC if key.endswith("labelsize")}
    with themes.context(["default", {**RC, **letters, **changes}]), warnings.catch_warnings():
        # a name may have letters that the font lacks
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def styles_of(
    methods: Sequence[str],
    panels: Sequence[Sequence[str]] = (),
    colours: Sequence[str] = COLOURS,
) -> dict[str, Style]:
    """A style for every method, the same in all pictures of a command.

    Methods that share a panel differ in colour, as long as there are enough. The method with the
    fewest colours left chooses next (DSATUR)."""
    coloured = [method for method in methods if method != "dense"]
    places = {method: i for i, method in enumerate(coloured)}
    near: dict[str, set[str]] = {method: set() for method in places}
    for panel in panels:
        for method in places.keys() & set(panel):
            near[method] |= set(panel)
    # neighbours differ in both; after a common multiple, the markers move on by one
    n, around_all = len(MARKERS), math.lcm(len(colours), len(MARKERS))
    every = []
    for i in range(len(colours) * n):
        every.append(Style(colours[i % len(colours)], MARKERS[(i + i // around_all) % n]))
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
