"""scripts/architectures, on three tiny networks of timm: attention, scaled convolutions, gates."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT


@pytest.fixture
def architectures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts/drawn"))
    monkeypatch.delitem(sys.modules, "main", raising=False)  # that of another folder of scripts
    return importlib.import_module("architectures")


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("test_vit", ["weights", "snip", "program"]),
        ("test_nfnet", ["weights", "rigl"]),
        ("test_mambaout", ["weights", "gmp"]),
    ],
)
def test_counts_flops_and_exports_of_an_architecture_are_right(
    architectures: ModuleType, name: str, columns: list[str], tmp_path: Path
) -> None:
    architectures.write_images(tmp_path)
    cells = dict(architectures.checks("timm", name, 32, tmp_path, columns))
    assert int(cells.pop("weights").replace(",", "")) > 100_000
    assert cells == dict.fromkeys(columns[1:], "ok")


def test_what_fails_is_in_the_row_of_its_network(architectures: ModuleType, tmp_path: Path) -> None:
    cells = dict(architectures.checks("timm", "test_vit_of_no_kind", 32, tmp_path, ["weights"]))
    assert cells["weights"].startswith("UserError: Unknown timm model")
