"""Heat maps of shares in layouts that several pictures need."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from dimred.report.pictures.sheet import SMALL, Sheet, line, per_cent, set_ticks, sized, width_of

COLOURS = "viridis"


def heat_map(axes: Axes, values: np.ndarray, norm: Normalize) -> None:
    """Cells of these values, without axes; nan is not drawn."""
    axes.imshow(values, norm=norm, cmap=COLOURS, aspect="auto", interpolation="none")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])


def name_rows(axes: Axes, names: Sequence[str], high: float) -> None:
    """The names of rows at the left, as many as fit in the height."""
    every = max(1, math.ceil(sized(0.14) * len(names) / high))
    set_ticks(axes.yaxis, range(0, len(names), every), lambda i: names[int(i)])


def scale(sheet: Sheet, most: float) -> Normalize:
    """The colour scale from 0 to a share, drawn on the sheet."""
    norm, wide = Normalize(0, most), min(2.6, sheet.width - 0.8)
    left = 0.15 + width_of("0 %") / 2
    sheet.y += 0.12
    axes = sheet.panel(left, sheet.y, wide, 0.13)
    axes.imshow(
        np.linspace(0, most, 128)[None],
        norm=norm,
        cmap=COLOURS,
        aspect="auto",
        interpolation="none",
        extent=(0, most, 0, 1),
    )
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
    axes.tick_params(labelsize=sized(SMALL))
    places = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(0, most)
    set_ticks(axes.xaxis, [place for place in places if 0 <= place <= most], per_cent)
    sheet.y += 0.13 + line()
    return norm
