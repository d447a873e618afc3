"""The notebook docs/quickstart.ipynb as a page. It is stored without outputs;

    scripts/histories tour

runs its cells and keeps what they print in docs/pictures/tour.json, and the plot beside it."""

from __future__ import annotations

import contextlib
import io
import json
import os
from typing import Any

from main import ROOT

NOTEBOOK = ROOT / "docs/quickstart.ipynb"
PRINTED = ROOT / "docs/pictures/tour.json"
PLOT = ROOT / "docs/pictures/tour.svg"
INTRODUCTION = "This page is the notebook [quickstart.ipynb](quickstart.ipynb), to run in Jupyter."


def cells() -> list[tuple[str, str]]:
    """The kind and the source of each cell."""
    found = json.loads(NOTEBOOK.read_text())["cells"]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in found]


def printed() -> dict[str, str]:
    """What each code cell has printed, by its source."""
    return json.loads(PRINTED.read_text())


def as_markdown() -> str:
    outputs = printed()
    (_, first), *others = cells()
    blocks = [as_block(kind, source, outputs.get(source, "")) for kind, source in others]
    return "\n\n".join([first, INTRODUCTION, *blocks]) + "\n"


def as_block(kind: str, source: str, output: str) -> str:
    if kind != "code":
        return source
    block = f"```python\n{source}\n```"
    if output:
        block += f"\n\n```text\n{output}\n```"
    if "plt.plot" in source:
        block += "\n\n![Test accuracy against the weights trained](pictures/tour.svg)"
    return block


def run() -> None:
    """Run the cells in the present folder and keep what they print and draw."""
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"figure.figsize": (6, 3.5), "svg.hashsalt": "tour"}
    names: dict[str, Any] = {}
    outputs = {}
    for kind, source in cells():
        if kind == "code":
            with contextlib.redirect_stdout(io.StringIO()) as said:
                exec(source, names)
            outputs[source] = said.getvalue().replace(f"{os.getcwd()}/", "").rstrip()
    PRINTED.write_text(json.dumps(outputs, indent=1, ensure_ascii=False) + "\n")
    plt.savefig(PLOT, metadata={"Date": None}, bbox_inches="tight")
