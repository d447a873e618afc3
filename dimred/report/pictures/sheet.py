"""Where things stand in a picture: titles, legends, panels, names beside their lines, ticks. In
inches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise, product
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from dimred.report.measures import prefixed
from dimred.report.pictures.style import MUTED, Style

SMALL, MEDIUM, LARGE = 8.5, 9.5, 11.5  # points, where font.size is 9
LEFT, BELOW = 0.62, 0.5  # of a panel, for its axes


class Sheet:
    """A figure that grows downwards: title and subtitle, then legends, texts and panels, placed
    from the top left."""

    def __init__(self, width: float, title: str = "", subtitle: str = "") -> None:
        self.width, self.y, self.figure = width, 0.12, Figure(figsize=(width, 1))
        self._texts: list[tuple[float, float, str, dict[str, Any]]] = []
        self._lines: list[tuple[Sequence[float], float, dict[str, Any]]] = []
        self._panels: list[tuple[Axes, float, float, float, float]] = []
        for words in wrapped(title, width - 0.3, 13.2) if title else ():
            self.text(0.15, self.y, words, fontsize=sized(LARGE), fontweight="bold")
            self.y += line() + 0.04
        if subtitle:
            self.paragraph(subtitle, color=MUTED)

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Its upper left corner is there."""
        self._texts.append((x, y, text, style))

    def line(self, xs: Sequence[float], y: float, **style: Any) -> None:
        """Through these points, all at the same height."""
        self._lines.append((xs, y, style))

    def paragraph(self, text: str, **style: Any) -> None:
        for words in wrapped(text, self.width - 0.3, 9.0):
            self.text(0.15, self.y, words, **style)
            self.y += line()

    def legend(self, entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Samples of lines with their labels, in as many rows as needed."""
        x, self.y = 0.15, self.y + 0.08
        for label, style in entries:
            wide = 0.34 + width_of(label)
            if x > 0.15 and x + wide > self.width - 0.1:
                x, self.y = 0.15, self.y + line() + 0.03
            self.line([x, x + 0.14, x + 0.28], self.y + 0.062, markevery=[1], **style)
            self.text(x + 0.34, self.y, label, fontsize=sized(SMALL))
            x += wide + 0.2
        self.y += line() + 0.05

    def panel(self, x: float, y: float, width: float, height: float, title: str = "") -> Axes:
        """Axes by their upper left corner, with a title above."""
        axes = self.figure.add_axes((0, 0, 1, 1), label=str(len(self._panels)))
        self._panels.append((axes, x, y, width, height))
        if title:
            self.text(
                x,
                y - line() - 0.06,
                shortened(title, width, MEDIUM, "bold"),
                fontsize=sized(MEDIUM),
                fontweight="bold",
            )
        return axes

    def finish(self) -> Figure:
        """Place everything, once the height is known."""
        height = self.y + 0.1
        self.figure.set_size_inches(self.width, height)
        for axes, x, y, wide, high in self._panels:
            axes.set_position(
                (x / self.width, 1 - (y + high) / height, wide / self.width, high / height)
            )
        for xs, y, style in self._lines:
            self.figure.add_artist(
                Line2D([x / self.width for x in xs], [1 - y / height] * len(xs), **style)
            )
        for x, y, text, style in self._texts:
            self.figure.text(x / self.width, 1 - y / height, text, va="top", **style)
        return self.figure


def beside(
    axes: Axes,
    size: tuple[float, float],
    ends: Sequence[tuple[float, float, str, Style]],
    room: float,
) -> None:
    """Write names to the right of axes of this size, each as close as possible to the height of its
    point (x, y), and connect them by dotted lines. The limits of the axes must be set."""
    wide, high = size
    to_axes = axes.transData + axes.transAxes.inverted()
    places = sorted(
        ((*to_axes.transform((x, y)), text, style) for x, y, text, style in ends),
        key=lambda end: (end[1], end[2]),
    )
    heights = spread(
        [min(max(y, 0.0), 1.0) for _, y, _, _ in places],
        min(sized(0.16) / high, 1.0 / max(1, len(places) - 1)),
    )
    there = 1 + 0.2 / wide
    for (x, y, text, style), height in zip(places, heights, strict=True):
        on: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
        # grey, dotted and without a marker, to be told from curves
        axes.plot(
            [x, 1 + 0.02 / wide, there - 0.08 / wide],
            [y, height, height],
            color=MUTED,
            lw=0.7,
            ls=(0, (1, 2)),
            zorder=1,
            **on,
        )
        # with its marker, to be told from others in a grey print
        axes.plot(
            [there - 0.06 / wide, there + 0.02 / wide, there + 0.1 / wide],
            [height] * 3,
            color=style.colour,
            marker=style.marker,
            markevery=[1],
            **on,
        )
        axes.text(
            there + 0.15 / wide,
            height,
            shortened(text, room - 0.36),
            va="center_baseline",
            fontsize=sized(SMALL),
            transform=axes.transAxes,
        )


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Ascending numbers in [0, 1], at least `gap` apart, each as close as possible to the wanted
    one."""
    # numbers that touch form a cluster: the sum of the wanted places of its first, and their count
    clusters: list[tuple[float, int]] = []
    for value in wanted:
        clusters.append((value, 1))
        while (
            len(clusters) > 1
            and first(clusters[-1], gap) < first(clusters[-2], gap) + gap * clusters[-2][1]
        ):
            (lower, m), (upper, n) = clusters[-2:]
            clusters[-2:] = [(lower + upper - gap * m * n, m + n)]
    places = []
    for cluster in clusters:
        places += [first(cluster, gap) + gap * k for k in range(cluster[1])]
    return places


def first(cluster: tuple[float, int], gap: float) -> float:
    return min(max(cluster[0] / cluster[1], 0.0), 1.0 - gap * (cluster[1] - 1))


# -- text --------------------
def sized(length: float) -> float:
    """A length at the size of letters that the style has; 9 points are the usual one."""
    return length * float(rcParams["font.size"]) / 9


def line() -> float:
    """From one line of text to the next."""
    return sized(0.17)


def width_of(text: str, size: float = SMALL, weight: str = "normal") -> float:
    """The width of a text in inches, in the font of the style."""
    return width_in(tuple(rcParams["font.family"]), text, sized(size), weight)


@cache
def width_in(family: tuple[str, ...], text: str, size: float, weight: str) -> float:
    font = FontProperties(family=list(family), size=size, weight=weight)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return width / 72


def wrapped(text: str, width: float, size: float) -> list[str]:
    """Lines that fit, with some room, since a browser's font may be wider."""
    lines, space = [""], width_of("a a", size) - width_of("aa", size)
    used = 0.0
    for word in text.split(" "):  # not at no-break spaces
        wide = width_of(word, size)
        if lines[-1] and used + space + wide > 0.97 * width:
            lines, used = [*lines, ""], 0.0
        lines[-1] = f"{lines[-1]} {word}".strip()
        used += wide + space
    return lines


def shortened(text: str, width: float, size: float = SMALL, weight: str = "normal") -> str:
    """The beginning and the end of a text that is too wide; the end tells it from others."""
    whole, left = text, len(text)
    while left > 4 and width_of(text, size, weight) > width:
        left -= 1
        text = f"{whole[: left - left // 2]}…{whole[len(whole) - left // 2 :]}"
    return text


def per_cent(fraction: float) -> str:
    """98 %"""
    return f"{100 * fraction:.4g} %"


def sparsity_label(sparsity: float | None) -> str:
    return "no sparsity" if sparsity is None else f"sparsity {per_cent(sparsity)}"


def with_prefix(value: float) -> str:
    """20 M"""
    factor, prefix = prefixed(value)
    return f"{value / factor:.3g} {prefix}".strip()


def columns(width: float, least: float, most: int) -> int:
    """The number of panels side by side, each of at least this width."""
    return max(1, min(most, int(width / least)))


# -- axes --------------------
def log_ticks(low: float, high: float, room: float, label: Callable[[float], str]) -> list[float]:
    """1, 2 and 5 times powers of ten within a range, as many as fit in `room` inches; round numbers
    if these are fewer than two."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        every = [step * 10.0**decade for decade, step in product(decades, steps)]
        # the ends themselves are ticks, however they were rounded
        places = [place for place in every if low * 0.999 <= place <= high * 1.001]
        if len(places) > 1 and fit(places, math.log(high / low) / room, label):
            return places
    thinned = places[:: max(1, math.ceil(len(places) * 0.5 / room))]
    return thinned if len(thinned) > 1 else round_ticks(low, high, room, label)


def fit(places: Sequence[float], per_inch: float, label: Callable[[float], str]) -> bool:
    """Whether labels on a log scale keep their distance."""
    apart = min(math.log(b / a) for a, b in pairwise(places)) / per_inch
    return apart > 0.08 + max(width_of(label(place)) for place in places)


def round_ticks(low: float, high: float, room: float, label: Callable[[float], str]) -> list[float]:
    """Round numbers within a small range, as many as fit, or its ends."""
    for count in (5, 4, 3, 2):
        every = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        places = [float(place) for place in every if low <= place <= high]
        if len(places) > 1 and fit(places, math.log(high / low) / room, label):
            return places
    return [low, high]


def set_ticks(axis: Axis, places: Sequence[float], label: Callable[[float], str]) -> None:
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(FixedFormatter([label(place) for place in places]))
    axis.set_minor_locator(NullLocator())
    axis.set_tick_params(length=0)
