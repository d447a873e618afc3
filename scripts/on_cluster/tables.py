"""The table that is reproduced on clusters, by commands that are interrupted and share a folder."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import sweeps

TABLE = f"""
title: Three methods on digits
source: a test of dimred
settings: dataset=digits model=lenet300 sparsity=0.9 recipe.epochs={sweeps.EPOCHS}
seeds: [0, 1]
measures: [test_accuracy, dim, training_flops]
rows: {{method: {{SNIP: method=snip, RigL: method=rigl, GMP: method=gmp}}}}
"""


@cache
def reference(place: Path) -> Path:
    """The folder of the table, reproduced by one command, run after run."""
    outputs = place / "table"
    sweeps.ended(start(outputs=outputs), outputs)
    print("a table of 6 runs one after the other: done", flush=True)
    return outputs


def start(*arguments: str, outputs: Path, name: str = "printed") -> subprocess.Popen[bytes]:
    """`dimred reproduce` of the table; its output goes to a file."""
    outputs.mkdir(parents=True, exist_ok=True)
    table = outputs / "methods.yaml"
    table.write_text(TABLE)
    seconds = f"checkpoint_seconds={sweeps.CHECKPOINT_SECONDS}"
    return sweeps.dimred("reproduce", str(table), seconds, *arguments, outputs=outputs, name=name)


def require_same(outputs: Path, reference: Path) -> None:
    """The runs have the bits of the reference, and the table has its numbers."""
    sweeps.require_same(outputs, reference)
    assert rows(outputs) == rows(reference)


def rows(outputs: Path) -> list[str]:
    page = (outputs / "tables/methods.md").read_text()
    found = [line for line in page.splitlines() if line.startswith("|")]
    assert len(found) > 3, page
    return found
