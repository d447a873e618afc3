"""Seconds of a sweep of small runs, side by side and one after the other.

The two take turns, so that other load on the machine hits both alike. Shown are medians over the
rounds: seconds of the command, processor seconds of all of its processes, and the seconds that one
more run takes, from sweeps of N and of 2 N runs.

    scripts/benchmarks/packed.py [--rounds R] [--runs N] [OVERRIDES ...]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from statistics import median

SWEEPS = ["dataset=mnist model=lenet300 recipe.epochs=1", "dataset=digits model=lenet300"]
WAYS = {"one after the other": [], "packed": ["hydra/launcher=packed"]}


def used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def sweep(overrides: str, runs: int, launcher: list[str]) -> tuple[float, float]:
    """Seconds and processor seconds of a sweep."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = f"seed={','.join(map(str, range(runs)))}"
        program = os.path.join(os.path.dirname(sys.executable), "dimred")
        command = [program, "train", "-m", *launcher, *overrides.split(), seeds]
        start, before = time.perf_counter(), used()
        subprocess.run([*command, f"outputs={folder}"], check=True, capture_output=True)
        return time.perf_counter() - start, used() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", default=SWEEPS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=8)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores\n")
    print("| sweep | way | seconds | processor seconds | seconds of one more run | throughput |")
    print("|---|---|---|---|---|---|")
    for overrides in given.overrides:
        compare(overrides, given.runs, given.rounds)


def compare(overrides: str, runs: int, rounds: int) -> None:
    """Print a row for each way."""
    short: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    long: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, launcher in WAYS.items():
            short[way].append(sweep(overrides, runs, launcher))
            long[way].append(sweep(overrides, 2 * runs, launcher))
    serial = next(iter(WAYS))
    for way in WAYS:
        pairs = zip(short[way], long[way], strict=True)
        more = median((b[0] - a[0]) / runs for a, b in pairs)
        ratio = median(a[0] / b[0] for a, b in zip(short[serial], short[way], strict=True))
        seconds, processor = (median(each[i] for each in short[way]) for i in (0, 1))
        print(
            f"| {runs} runs, {overrides} | {way} | {seconds:.1f} | {processor:.1f} | {more:.2f} "
            f"| {ratio:.2f}x |",
            flush=True,
        )


if __name__ == "__main__":
    main()
