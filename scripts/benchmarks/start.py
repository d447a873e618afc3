"""Seconds from a command to the end of its first training step, beside those of `import torch`.

The commands take turns, so that other load on the machine hits all of them alike. Shown are
medians, and medians of the differences and of the ratios within a round.

    scripts/benchmarks/start.py [--rounds N] [OVERRIDES ...]    e.g. "dataset=mnist model=resnet20"
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from turns import in_turns, ratio

from dimred.methods.pruning_at_init.single_shot import SNIP
from dimred.net import Net
from dimred.training.loop import Train
from dimred.training.observers import Observer

RUNS = "dataset=digits model=lenet300", "dataset=digits model=resnet20"
ROUNDS = 15


class LastStep(Observer):
    def after_update(self, train: Train, step: int) -> None:
        os._exit(0)


@dataclass(frozen=True, kw_only=True)
class UntilFirstStep(SNIP):
    """SNIP in a process that ends after the first step."""

    def run(self, net: Net, train: Train) -> None:
        train.observers.append(LastStep())
        super().run(net, train)


def run(command: list[str], folder: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)


def commands(runs: Sequence[str], folder: str) -> dict[str, list[str]]:
    """By the name of their row."""
    method = Path(folder, "method/until_first_step.yaml")
    method.parent.mkdir()
    snip = (Path(__file__).parents[2] / "conf/method/snip.yaml").read_text()
    method.write_text(snip.replace(f"{SNIP.__module__}.SNIP", "start.UntilFirstStep"))
    dimred = [str(Path(sys.executable).with_name("dimred")), "train", f"--config-dir={folder}"]
    dimred.append("method=until_first_step")
    # which ends as abruptly as the runs do
    torch = [sys.executable, "-c", "import os, torch; os._exit(0)"]
    return {"import torch": torch, **{run: [*dimred, *run.split()] for run in runs}}


def rows(runs: Sequence[str] = RUNS, rounds: int = ROUNDS) -> list[tuple[str, ...]]:
    """A header and a row for each command."""
    with tempfile.TemporaryDirectory() as folder:
        each = {name: partial(run, of, folder) for name, of in commands(runs, folder).items()}
        times = in_turns(each, rounds, warm_up=0)
    base = times["import torch"]
    table: list[tuple[str, ...]] = [("until the first step", "seconds", "more than torch", "ratio")]
    for name, taken in times.items():
        beyond = median(a - b for a, b in zip(taken, base, strict=True))
        cells = f"{median(taken):.2f}", f"{beyond:.2f}", f"{ratio(taken, base):.2f}x"
        table.append((name, *cells))
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="*", default=RUNS, metavar="OVERRIDES")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    for row in rows(given.runs, given.rounds):
        print("  ".join(f"{cell:>32}" for cell in row))
