"""A small table, its runs, and what a filled table has in a cell."""

from __future__ import annotations

import itertools
import json
from functools import cache
from pathlib import Path
from typing import Any

from conftest import compose
from omegaconf import DictConfig, OmegaConf

from dimred.report.runs import find_runs
from dimred.report.tables.fill import fill
from dimred.report.tables.published import read_table
from dimred.report.tables.table import Table
from dimred.runs.config.files import names

TABLES = names("table")


def put(outputs: Path, overrides: str, seed: int = 0, **result: Any) -> Path:
    """The folder of a run that ended like this; its name says nothing."""
    folder = outputs / "anywhere" / f"{len(list(outputs.rglob('config.yaml')))}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        OmegaConf.to_yaml(composed_fully(f"{overrides} seed={seed}"), resolve=True)
    )
    if result:
        (folder / "result.json").write_text(json.dumps({"status": "done", **result}))
    return folder


@cache
def composed_fully(overrides: str) -> DictConfig:
    return compose(*overrides.split(), "data_dir=/somewhere/else")


SNIP, RANDOM = (
    f"dataset=digits recipe.steps=2 method={name} sparsity=0.5" for name in ("snip", "random")
)


def all_of(boxes: list[dict[str, tuple[str, ...]]]) -> list[list[tuple[str, str]]]:
    return sorted(
        sorted(zip(box, values, strict=True))
        for box in boxes
        for values in itertools.product(*box.values())
    )


def filled(table: str, outputs: Path, **changes: Any) -> dict[str, Any]:
    return fill(read_table(table, **changes), find_runs(outputs))


def cell(document: dict[str, Any], *labels: str) -> dict[str, Any]:
    return next(
        c
        for part in document["parts"]
        for c in part["cells"]
        if (*c["row"], *c["column"]) == labels
    )


@cache
def shipped(name: str) -> Table:
    return read_table(name)
