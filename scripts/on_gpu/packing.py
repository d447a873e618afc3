"""Many runs on one GPU: `dimred train -m hydra/launcher=packed`, with and without MPS."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BATCH_SIZE = 128  # of recipe=cifar_fast
RUN = [
    "method=rigl", "sparsity=0.95", "model=resnet20", "dataset=digits", "dataset.resize=32",
    "recipe=cifar_fast", "recipe.steps=800", "device=cuda", "checkpoint_seconds=1000",
]  # fmt: skip


def packing() -> dict[str, Any]:
    """Throughput of 1, 4, 8 and 16 runs side by side, with and without MPS."""
    rows, wrong = {}, []
    for mps in (True, False):
        for n in (1, 4, 8, 16):
            if mps or n in (4, 16):
                label = f"{n} at once, {'MPS' if mps else 'no MPS'}"
                rows[label] = throughput(n, mps)
                print(f"{label:24} {rows[label]}", flush=True)
                if rows[label]["runs"] < n:
                    wrong.append(f"{label}: {rows[label]['runs']} runs are done")
    return {"wrong": wrong, **rows}


def throughput(n: int, mps: bool) -> dict[str, float]:
    """How many runs are done, and the images a second of all of them, while they train."""
    environment = dict(os.environ)
    control = shutil.which("nvidia-cuda-mps-control")
    if control and not mps:
        folders = environment["PATH"].split(os.pathsep)
        kept = [folder for folder in folders if not (Path(folder) / Path(control).name).exists()]
        environment["PATH"] = os.pathsep.join(kept)
    with tempfile.TemporaryDirectory() as folder:
        seeds = ",".join(map(str, range(n)))
        command = [sys.executable, "-m", "dimred", "train", "-m", "hydra/launcher=packed"]
        command += [f"hydra.launcher.n_jobs={n}", f"outputs={folder}", f"seed={seeds}", *RUN]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        results = [json.loads(path.read_text()) for path in Path(folder).rglob("result.json")]
    runs = [each for each in results if each.get("status") == "done"]
    if len(runs) < n:
        print(done.stdout[-500:], done.stderr[-1500:])
    images = [each["steps"] * BATCH_SIZE / each["seconds"] for each in runs]
    return {"runs": len(runs), "images_per_second": round(sum(images))}
