"""Seconds that reports take on many runs in one folder.

Ten methods are trained once, on digits. Their runs are then copied with other seeds, sparsities and
accuracies, until the folder has as many runs as asked: configuration, result, metrics and log as
real runs write them. A command is timed three times: without an index of the runs, with one, and
after a hundred runs have changed. A missing file cache of the system is not measured.

    ./scripts/bench folders [--count N] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

METHODS = "snip,grasp,synflow,freezenet,magnitude,rigl,set,gmp,imp,edge_popup"
SPARSITY = "0.9"
COPIED = ("log.txt", "metrics.jsonl", ".lock")
PROGRAM = os.path.join(os.path.dirname(sys.executable), "dimred")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--folder", help="keep the runs here, and use those that are there")
    given = parser.parse_args()
    if given.folder:
        bench(Path(given.folder), given.count)
    else:
        with tempfile.TemporaryDirectory() as folder:
            bench(Path(folder), given.count)


def bench(outputs: Path, count: int) -> None:
    runs = outputs / "runs"
    if not runs.is_dir():
        make(outputs, count)
    found = sorted(path.parent for path in runs.rglob("result.json"))
    print(f"{len(found)} runs, {os.cpu_count()} cores\n")
    print("| seconds | without an index | with one | after 100 runs have changed |")
    print("|---|---|---|---|")
    for command in commands(outputs):
        forget(outputs)
        first, second = timed(command), timed(command)
        for folder in found[:100]:
            os.utime(folder / "result.json")
        words = [word for word in command if "/" not in word]
        print(f"| `dimred {' '.join(words)}` | {first:.1f} | {second:.1f} | {timed(command):.1f} |")


def commands(outputs: Path) -> list[list[str]]:
    runs = ["--runs", f"{outputs}/runs"]
    return [
        ["table", "survey_digits", *runs],
        ["runs", *runs],
        ["runs", "--format", "csv", *runs],
        ["reproduce", "survey_digits", "--dry-run", f"outputs={outputs}"],
        ["plot", "sparsity", *runs, "--out", f"{outputs}/pictures"],
        ["plot", "curves", *runs, "--out", f"{outputs}/pictures"],
        ["plot", *runs, "--out", f"{outputs}/pictures"],
    ]


def timed(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([PROGRAM, *command], check=True, capture_output=True)
    return time.perf_counter() - start


def forget(outputs: Path) -> None:
    """Remove what an earlier command has remembered."""


# -- made runs --------------------
def make(outputs: Path, count: int) -> None:
    """Train a run of each method, and copy them with other seeds and sparsities."""
    train = ["train", "-m", f"method={METHODS}", f"sparsity={SPARSITY}"]
    subprocess.run([PROGRAM, *train, f"outputs={outputs}", "recipe.epochs=20"], check=True)
    real = sorted(path.parent for path in (outputs / "runs").rglob("result.json"))
    draw = random.Random(0)
    for original, seed, sparsity in islice(varied(real, count), len(real), count):
        copy(original, seed, sparsity, draw)


def varied(real: list[Path], count: int) -> Iterator[tuple[Path, int, str]]:
    """The real runs first."""
    sparsities = [SPARSITY, *(f"{0.02 * i:g}" for i in range(1, 20))]
    seeds = range(-(-count // (len(real) * len(sparsities))))
    for sparsity, seed, original in product(sparsities, seeds, real):
        yield original, seed, sparsity


def copy(original: Path, seed: int, sparsity: str, draw: random.Random) -> None:
    name, _, digest = original.name.rpartition("-")
    name = name.replace(f"-s{SPARSITY}-seed0", f"-s{sparsity}-seed{seed}")
    folder = original.with_name(f"{name}-{digest[:3]}{draw.getrandbits(28):07x}")
    folder.mkdir()
    for file in COPIED:
        (folder / file).write_bytes((original / file).read_bytes())
    config = (original / "config.yaml").read_text()
    config = re.sub(r"(?m)^seed: 0$", f"seed: {seed}", config)
    config = config.replace(f"sparsity: {SPARSITY}", f"sparsity: {sparsity}")
    (folder / "config.yaml").write_text(config)
    result = json.loads((original / "result.json").read_text())
    result |= {"seed": seed, "folder": str(folder), "digest": folder.name[-10:]}
    if result["sparsity"] is not None:
        result["sparsity"] = float(sparsity)
    result["test_accuracy"] *= draw.uniform(0.95, 1)
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
