"""Seconds that reports take on many runs in one folder.

Ten methods are trained once, on digits. Their runs are then copied with other seeds, sparsities and
accuracies, until the folder has as many runs as asked: configuration, result, metrics and log as
real runs write them. A command is timed twice: without an index of their configurations
(dimred/report/index.py), and with the one that it has left. The system has the files in memory.

    ./scripts/bench folders [--count N] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
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
    if not (outputs / "runs").is_dir():
        make(outputs, count)
    found = sum(1 for _ in (outputs / "runs").rglob("result.json"))
    cache = outputs / "cache"
    os.environ["DIMRED_CACHE"] = str(cache)
    print(f"{found} runs, {os.cpu_count()} cores\n")
    print("| seconds (of a processor) | without an index | with one |")
    print("|---|---|---|")
    for command in commands(outputs):
        shutil.rmtree(cache, ignore_errors=True)
        words = [word for word in command if "/" not in word and word != "--runs"]
        print(f"| `dimred {' '.join(words)}` | {timed(command)} | {timed(command)} |", flush=True)


def commands(outputs: Path) -> list[list[str]]:
    runs, out = ["--runs", f"{outputs}/runs"], ["--out", f"{outputs}/pictures"]
    return [
        ["table", "survey_digits", *runs],
        ["runs", *runs],
        ["runs", "--format", "csv", *runs],
        ["reproduce", "survey_digits", "--dry-run", f"outputs={outputs}"],
        ["status", f"{outputs}/runs"],
        ["plot", "sparsity", *runs, *out],
        ["plot", "curves", *runs, *out],
        ["plot", "overview", *runs, *out],
    ]


def timed(command: list[str]) -> str:
    """Seconds of the clock, and of a processor."""
    start, before = time.perf_counter(), used()
    subprocess.run([PROGRAM, *command], check=True, capture_output=True)
    return f"{time.perf_counter() - start:.1f} ({used() - before:.1f})"


def used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


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
