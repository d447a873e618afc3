"""Names of layers in pictures: as long as there is room, and never two alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from dimred.report.pictures.sheet import SMALL, shortened, width_of


def labels(
    names: Sequence[str], width: float, size: float = SMALL, weight: str = "normal"
) -> list[str]:
    """The names of layers that fit in a width. Where one does not, its parts become their first
    letters and last digits, from the left: vit.layer.0.attention.query is v.l.0.attention.query.
    Names that would be alike, or still do not fit, are cut in the middle, with their place in
    front."""
    found = [abbreviated(name.removesuffix(".weight"), width, size, weight) for name in names]
    counts = Counter(found)
    for i, text in enumerate(found):
        if counts[text] > 1 or width_of(text, size, weight) > width:
            found[i] = shortened(f"{i + 1}: {text}", width, size, weight)
    return found


def abbreviated(name: str, width: float, size: float, weight: str) -> str:
    parts = name.split(".")
    for i, part in enumerate(parts[:-1]):
        if width_of(".".join(parts), size, weight) <= width:
            break
        # of stage2, s2
        parts[i] = part[:1] + re.sub(r"^.*?(\d*)$", r"\1", part[1:])
    return ".".join(parts)
