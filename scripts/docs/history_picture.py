"""A picture of weights through training: a row for each weight, a colour for each state."""

from __future__ import annotations

from html import escape
from itertools import groupby
from typing import NamedTuple

#: the states, with colours for light and for dark pages
COLOURS = (None, "#98a2ae", "#7fd0c5", "#0b8f83")
MEANINGS = ("zero", "not trained, nonzero", "trained, zero at this step", "trained")
TEXT = "#7a838e"
COLUMNS = 64
CELL_WIDTH, CELL_HEIGHT = 9, 3
LEFT, TOP, GAP = 110, 8, 14


class Band(NamedTuple):
    """The weights of a layer. rows: the states of each weight, one a step"""

    layer: str
    rows: list[list[int]]


def draw(bands: list[Band], title: str) -> str:
    steps = len(bands[0].rows[0]) - 1
    top, parts = TOP, list[str]()
    for band in bands:
        rows = in_order([thinned(row) for row in band.rows])
        parts.append(picture(band.layer, rows, top))
        top += CELL_HEIGHT * len(rows) + GAP
    width, height = LEFT + CELL_WIDTH * COLUMNS + 10, top + 34
    parts.append(label(LEFT, top + 2, "start", "start"))
    parts.append(label(LEFT + CELL_WIDTH * COLUMNS, top + 2, f"{steps - 1} steps", "end"))
    parts += legend(top + 24)
    inside = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">\n'
        f"<title>{escape(title)}</title>\n"
        f'<g font-family="sans-serif" font-size="11" fill="{TEXT}">\n{inside}\n</g>\n</svg>\n'
    )


def thinned(row: list[int]) -> list[int]:
    """As many states as the picture has columns, the first and the last included."""
    last = len(row) - 1
    return [row[round(i * last / (COLUMNS - 1))] for i in range(COLUMNS)]


def in_order(rows: list[list[int]]) -> list[list[int]]:
    """First the weights that are trained longest, and of these the earliest."""
    return sorted(rows, key=lambda row: (-sum(row), [-state for state in row]))


def picture(layer: str, rows: list[list[int]], top: int) -> str:
    """The rows of a layer, its name on their left, and a frame."""
    height = CELL_HEIGHT * len(rows)
    paths = "".join(path(rows, state, colour) for state, colour in enumerate(COLOURS) if colour)
    return (
        label(LEFT - 8, top + height // 2 + 4, layer, "end")
        + f'<g transform="translate({LEFT},{top}) scale({CELL_WIDTH},{CELL_HEIGHT})">{paths}'
        f'<rect width="{COLUMNS}" height="{len(rows)}" fill="none" stroke="{TEXT}" '
        'stroke-width=".5" vector-effect="non-scaling-stroke"/></g>'
    )


def path(rows: list[list[int]], state: int, colour: str) -> str:
    """All stretches of a state, as strokes one row high."""
    strokes: list[str] = []
    for y, row in enumerate(rows):
        x = 0
        for value, run in groupby(row):
            length = len(list(run))
            if value == state:
                strokes.append(f"M{x} {y}.5h{length}")
            x += length
    return f'<path stroke="{colour}" d="{"".join(strokes)}"/>' if strokes else ""


def legend(y: int) -> list[str]:
    parts = []
    for i, (colour, meaning) in enumerate(zip(COLOURS, MEANINGS, strict=True)):
        x = LEFT + (0, 55, 210, 395)[i]
        parts.append(
            f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour or "none"}" '
            f'stroke="{TEXT}" stroke-width=".5"/>'
        )
        parts.append(label(x + 16, y, meaning, "start"))
    return parts


def label(x: int, y: int, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
