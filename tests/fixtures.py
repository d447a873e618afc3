"""Fixtures of several files: a small table, finished runs, a folder of images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import Command
from PIL import Image

TINY = """
title: A tiny table
source: nowhere
settings: dataset=digits recipe.steps=2
seeds: [0, 1]
rows: {method: {dense: method=dense, SNIP: method=snip, random: method=random, theirs: null}}
columns: {sparsity: {"0.5": sparsity=0.5, "0.9": sparsity=0.9}}
baselines: [dense]
published:
  - {source: one, values: {dense: [97.0], SNIP: [90.0±0.1, null], theirs: [88, 87]}, tolerance: 0.5}
  - {source: other, values: {SNIP: [90.0±4.0]}, recalled: true, best_test_epoch: true, tolerance: 0.5}
claims:
  - {says: SNIP keeps 99 %, cell: [SNIP, "0.5"], against: [dense], ratio_at_least: 0.99}
  - {says: SNIP beats random, cell: [SNIP, "0.9"], against: [random, "0.9"], difference_at_least: 0}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A table of one's own."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    return str(tmp_path / "tiny.yaml")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SNIP and SET at two sparsities, and dense; two seeds each."""
    folder = tmp_path_factory.mktemp("trained")
    outcome = Command(
        (
            "train",
            "-m",
            "method=snip,set,dense",
            "sparsity=0.5,0.9",
            "seed=0,1",
            "recipe.epochs=3",
            f"outputs={folder}",
        ),
        folder / "process",
    ).wait(300)
    assert outcome.code == 0, outcome.err
    return folder / "runs"


#: how `finished` was trained: dimred train FINISHED
FINISHED = "recipe.steps=3"


@pytest.fixture(scope="session")
def three_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a run of three steps."""
    folder = tmp_path_factory.mktemp("three-steps")
    outcome = Command(("train", FINISHED, f"outputs={folder / 'outputs'}"), folder).wait()
    assert outcome.code == 0, outcome.err
    return folder / "outputs"


@pytest.fixture
def finished(three_steps: Path, tmp_path: Path) -> Path:
    """A finished run in tmp_path/outputs, which a test may change."""
    outputs = shutil.copytree(three_steps, tmp_path / "outputs")
    (run,) = outputs.glob("runs/*/*/*")
    return run


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "runs"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of noise, 6 train and 2 test images each, 20x20 pixels; and a file that is no
    image."""
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, n in (("train", 6), ("test", 2)):
        for name in "abc":
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(noise.integers(0, 256, (20, 20, 3), np.uint8)).save(
                    folder / split / name / f"{i}.png"
                )
    (folder / "train/a/notes.txt").write_text("not an image")
    return folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of decoded images that is empty and of this test alone."""
    monkeypatch.setenv("DIMRED_CACHE", str(tmp_path / "cache"))
