"""The notebook docs/quickstart.ipynb: its cells run in order, in one namespace, as in Jupyter."""

from __future__ import annotations

import json
import re
from pathlib import Path

import matplotlib
import pytest
from conftest import ROOT

NOTEBOOK = json.loads((ROOT / "docs/quickstart.ipynb").read_text())


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What the cells print, and the folder that they are run in."""
    folder, lines = tmp_path_factory.mktemp("notebook"), []

    def show(*values: object) -> None:
        lines.append(" ".join(map(str, values)))

    matplotlib.use("Agg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        names: dict[str, object] = {"print": show}
        for cell in NOTEBOOK["cells"]:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), names)
    return folder, "\n".join(lines)


def test_the_notebook_trains_and_sweeps(said: tuple[Path, str]) -> None:
    folder, text = said
    assert "2510 of 50200 weights" in text and "9 runs, 0 failed" in text
    assert len(list(folder.glob("outputs/runs/digits/lenet300/*/result.json"))) == 9


def test_the_notebook_ends_with_a_plain_sparse_network(said: tuple[Path, str]) -> None:
    folder, text = said
    assert "torch.nn.modules.container.Sequential" in text
    assert "95.0% of the weights are zero" in text
    accuracy = re.search(r"([\d.]+)% of all digits", text)
    assert accuracy and float(accuracy[1]) > 90
    assert (folder / "sparse.pt").exists()


def test_the_notebook_is_stored_without_outputs() -> None:
    for cell in NOTEBOOK["cells"]:
        assert not cell.get("outputs") and not cell.get("execution_count")
