"""scripts/drawn_runs: it examines existing files, and finds disagreements."""

import importlib.util
import random
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def drawn_runs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("drawn_runs", ROOT / "scripts/drawn/main.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_drawn_run_trains_and_agrees_with_itself(drawn_runs: ModuleType, tmp_path: Path) -> None:
    drawn = drawn_runs.draw(random.Random("0/4"))
    assert drawn_runs.examine(drawn, tmp_path) == "trained"
    folder = next(tmp_path.glob("runs/*/*/*/masks.npz")).parent
    cfg = drawn_runs.configuration(drawn, tmp_path)
    with pytest.raises(AssertionError, match="compact_file_bytes"):
        drawn_runs.check_exports(cfg, {"compact_file_bytes": 0}, folder)
