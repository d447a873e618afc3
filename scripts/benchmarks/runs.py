"""Whole runs, from the command to its result: `recipe.arithmetic=auto` relative to dense products.

    ./scripts/bench runs [--seeds N] [--data FOLDER] [RUN ...]        e.g. mnist

The commands of a seed take turns in a random order. Seconds are medians over the seeds; above 1 is
faster than dense products. The last columns are those of a training step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import mean, median

from turns import Times, in_turns, ratio

RUNS = {
    "mnist": "dataset=mnist model=lenet300 sparsity=0.95 recipe.epochs=3",
    "cifar": "dataset=cifar10_jpeg model=resnet20 sparsity=0.95 recipe.epochs=1",
}
METHODS = ("snip", "rigl", "freezenet")
KINDS = ("dense", "auto")


def train(overrides: str, outputs: str) -> None:
    dimred = str(Path(sys.executable).with_name("dimred"))
    command = [dimred, "train", *overrides.split(), f"outputs={outputs}"]
    subprocess.run(command, check=True, capture_output=True)


def results(outputs: str) -> list[dict]:
    return [json.loads(path.read_text()) for path in Path(outputs).glob("runs/*/*/*/result.json")]


def row(run: str, method: str, data: str, seeds: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        times: Times = {kind: [] for kind in KINDS}
        for seed in range(seeds):
            common = f"{RUNS[run]} data_dir={data} method={method} seed={seed}"
            turn = {
                kind: partial(train, f"{common} recipe.arithmetic={kind}", f"{folder}/{kind}")
                for kind in KINDS
            }
            for kind, taken in in_turns(turn, 1, warm_up=0).items():
                times[kind] += taken
        dense, auto = (results(f"{folder}/{kind}") for kind in KINDS)
    found = [f"{median(times[kind]):.1f} s" for kind in KINDS]
    found.append(f"{ratio(times['dense'], times['auto']):.2f}")
    found += [f"{1e3 * median(r['step_seconds'] for r in each):.2f} ms" for each in (dense, auto)]
    found += [f"{100 * mean(r['test_accuracy'] for r in each):.2f}" for each in (dense, auto)]
    return f"| {run} | {method} | {' | '.join(found)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", default=[*RUNS], metavar="RUN")
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", default=os.environ.get("DIMRED_DATA", "data"))
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores\n")
    print("| run | method | dense | auto | times faster | step | step | accuracy % | accuracy % |")
    print("|---" * 9 + "|")
    for run in given.runs:
        for method in given.methods:
            print(row(run, method, given.data, given.seeds), flush=True)


if __name__ == "__main__":
    main()
