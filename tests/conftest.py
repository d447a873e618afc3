"""Fixtures that run commands, and the choice of --quick."""

from __future__ import annotations

import copy
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from commands import Command, Outcome
from fixtures import finished, own_cache, pictures, runs, three_steps, tiny, trained  # noqa: F401
from omegaconf import DictConfig
from safetensors.torch import load_file

from dimred.cli.main import main
from dimred.report.compose import values_alone

os.environ["OMP_WAIT_POLICY"] = (
    "passive"  # on busy cores, threads that spin slow small nets down 100 times
)

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("DIMRED_DATA") or ROOT / "../shared/data").absolute()
SCRIPT = str(Path(sys.executable).with_name("dimred"))

#: the files of ./scripts/test --quick: numbers of the core and of methods, worked out by hand
QUICK = {
    f"test_{name}.py"
    for name in (
        "architecture",
        "batchnorm",
        "cover",
        "deepr",
        "docs",
        "draws",
        "dsr",
        "dynamic",
        "gradual",
        "granet",
        "masks",
        "mest",
        "net",
        "nm",
        "own_loop",
        "rewiring",
        "select",
        "snfs",
        "soft",
        "srigl",
        "storage",
        "supermask",
        "sweep_table",
        "ticket",
        "topkast",
    )
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="only what takes less than a minute in all"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))
    if not config.getoption("--quick"):
        return
    slow = {
        item
        for item in items
        if item.path.name not in QUICK or "start" in getattr(item, "fixturenames", ())
    }
    items[:] = [item for item in items if item not in slow]
    config.hook.pytest_deselected(items=list(slow))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Start a command; `before` is called first, in its process."""
    started: list[Command] = []

    def start(*arguments: str, before: Callable[[], None] | None = None) -> Command:
        started.append(Command(arguments, tmp_path / f".process-{len(started)}", before))
        return started[-1]

    yield start
    for command in started:
        command.process.kill()
        command.process.join()


@pytest.fixture
def dimred(start: Callable[..., Command]) -> Callable[..., Outcome]:
    """Run a command to its end."""
    return lambda *arguments, before=None: start(*arguments, before=before).wait()


@pytest.fixture
def in_this_process() -> Iterator[Callable[..., int]]:
    """Run a command in this process, which has its modules and workers already. What it sets up,
    log messages and argv, is put back."""
    logger, argv = logging.getLogger("dimred"), sys.argv
    before = logger.handlers[:], logger.level, logger.propagate
    yield lambda *arguments: main([*arguments])
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])
    sys.argv = argv


@pytest.fixture
def train(dimred: Callable[..., Outcome], tmp_path: Path) -> Callable[..., Path]:
    """Train to the end on digits, in tmp_path/outputs unless told otherwise; the folder of the
    run."""

    def train(*arguments: str, outputs: Path | None = None) -> Path:
        outcome = dimred("train", *arguments, f"outputs={outputs or tmp_path / 'outputs'}")
        assert outcome.code == 0, outcome.err
        return Path(outcome.out.splitlines()[-1].strip())

    return train


def compose(*overrides: str) -> DictConfig:
    """The configuration that `dimred train OVERRIDES` composes."""
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return hydra.compose("config", list(overrides))


def compose_method(name: str, *overrides: str) -> DictConfig:
    """What `compose(f"method={name}", *overrides)` composes; without Hydra, which takes 0.1 s, if
    the file of the method chooses no other files."""
    values = values_alone(name)
    if values is None:
        return compose(f"method={name}", *overrides)
    cfg = copy.deepcopy(compose_dense(*overrides))
    cfg.method = values
    return cfg


@cache
def compose_dense(*overrides: str) -> DictConfig:
    return compose("method=dense", *overrides)


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


#: what may differ in the results of two equal runs
UNLIKE = {
    "seconds",
    "step_seconds",
    "inference_seconds",
    "peak_memory_bytes",
    "folder",
    "command",
    "commit",
}


def assert_same(one: Path, other: Path) -> None:
    """Both folders hold the same run, to the bit."""
    tensors, others = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert tensors.keys() == others.keys() and all(
        torch.equal(tensors[name], others[name]) for name in tensors
    )
    with np.load(one / "masks.npz") as masks, np.load(other / "masks.npz") as other_masks:
        assert set(masks) == set(other_masks) and all(
            np.array_equal(masks[k], other_masks[k]) for k in masks
        )
    assert (one / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
    left, right = result_of(one), result_of(other)
    assert {k: v for k, v in left.items() if k not in UNLIKE} == {
        k: v for k, v in right.items() if k not in UNLIKE
    }
    assert not (one / "checkpoint").exists()


def steps_done(folder: Path) -> int:
    """When the last checkpoint was written; 0 without one. Reads the header alone, in the middle of
    training."""
    try:
        with open(folder / "checkpoint/last.safetensors", "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    except FileNotFoundError:
        return 0
    return json.loads(header["__metadata__"]["about"])["steps_done"]


def twin(run: Path, outputs: Path) -> Path:
    """The folder of the same run in another folder of outputs."""
    return outputs.joinpath(*run.parts[-4:])


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages of warnings and errors: other tests of the process may have asked for more."""
    found = [each for each in caplog.records if each.levelno >= logging.WARNING]
    return [each.getMessage() for each in found]
