"""The notebook docs/quickstart.ipynb as a page."""

from __future__ import annotations

import json
from pathlib import Path

DOWNLOAD = "\nThis page is the notebook [quickstart.ipynb](quickstart.ipynb), to run in Jupyter.\n"


def as_markdown(path: Path) -> str:
    cells = json.loads(path.read_text())["cells"]
    first, *others = [as_block(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    return "\n\n".join([first, DOWNLOAD, *others]) + "\n"


def as_block(kind: str, source: str) -> str:
    return f"```python\n{source}\n```" if kind == "code" else source
