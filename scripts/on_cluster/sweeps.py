"""The sweep that all parts compute, and the comparison of its runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

RUNS = 4
EPOCHS = 250
CHECKPOINT_SECONDS = 2.0
SWEEP = (
    *("method=rigl", f"seed={','.join(map(str, range(RUNS)))}", f"recipe.epochs={EPOCHS}"),
    f"checkpoint_seconds={CHECKPOINT_SECONDS}",
)
#: numbers of a result that measure the machine or name the place
UNLIKE = {
    *("seconds", "step_seconds", "inference_seconds", "peak_memory_bytes"),
    *("folder", "command", "commit"),
}


@cache
def reference(place: Path) -> Path:
    """The folder of the sweep, computed one after the other."""
    outputs = place / "sweep"
    ended(start(outputs=outputs), outputs)
    print(f"{RUNS} runs one after the other: done", flush=True)
    return outputs


def start(*arguments: str, outputs: Path) -> subprocess.Popen[bytes]:
    """`dimred train -m ...` of the sweep."""
    return dimred("train", "-m", *SWEEP, *arguments, outputs=outputs)


def dimred(*arguments: str, outputs: Path, name: str = "printed") -> subprocess.Popen[bytes]:
    """A command that computes each run on one thread; its output goes to a file of the folder."""
    outputs.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dimred", *arguments, f"outputs={outputs}"]
    with open(outputs / name, "wb") as printed:
        return subprocess.Popen(command, env=environment, stdout=printed, stderr=printed)


def folders(outputs: Path) -> list[Path]:
    return sorted(path.parent for path in outputs.glob("runs/*/*/*/config.yaml"))


def begun(outputs: Path, runs: int) -> Callable[[], bool]:
    """Whether so many runs have checkpoints and no result."""
    return lambda: sum((folder / "checkpoint").exists() for folder in folders(outputs)) >= runs


def until(condition: Callable[[], object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("waited in vain")
        time.sleep(0.05)


def lost_seconds(outputs: Path) -> float:
    """Now that runs were killed: the most training of one of them that no checkpoint has."""
    checkpoints = [folder / "checkpoint/last.safetensors" for folder in folders(outputs)]
    leases = [folder for folder in folders(outputs) if (folder / ".lease").exists()]
    saved = [path.stat().st_mtime for path in checkpoints if path.parents[1] in leases]
    return max(time.time() - each for each in saved)


def ended(process: subprocess.Popen[bytes], outputs: Path, name: str = "printed") -> None:
    process.wait(600)
    if process.returncode:
        print((outputs / name).read_text())
        raise SystemExit(f"the command in {outputs} ended with {process.returncode}")


def require_same(outputs: Path, reference: Path) -> None:
    """All runs are done and have the bits of the reference."""
    found, wanted = folders(outputs), folders(reference)
    assert [each.name for each in found] == [each.name for each in wanted]
    for one, other in zip(found, wanted, strict=True):
        for name in ("model.safetensors", "metrics.jsonl"):
            assert (one / name).read_bytes() == (other / name).read_bytes(), (one, name)
        with np.load(one / "masks.npz") as masks, np.load(other / "masks.npz") as others:
            assert all(np.array_equal(masks[key], others[key]) for key in others), one
        assert numbers(one) == numbers(other), one


def numbers(folder: Path) -> dict[str, Any]:
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "done", folder
    return {key: value for key, value in result.items() if key not in UNLIKE}


def count(outputs: Path, text: str) -> int:
    """The runs whose log.txt has this text."""
    logs = [(folder / "log.txt").read_text() for folder in folders(outputs)]
    return sum(text in log for log in logs)
