"""A training step with sparse products on a CPU, relative to dense PyTorch and other libraries.

    ./scripts/bench arithmetic [--quick] [MODEL ...]

All candidates of a model, at all densities, take steps in turn (turns.py). A time is the median
over the rounds, a ratio the median of the ratios within a round: above 1 is faster than plain dense
PyTorch, in brackets than the fastest dense candidate. A second table has the memory. With --quick
there are half as many rounds, without a compiled candidate and the memory, which take most of the
time.
"""

from __future__ import annotations

from dimred.runs.environment import prepare_process

prepare_process()  # as the command line does, before torch is imported

import os
import platform
import sys
from statistics import median

import memory
import torch
from candidates import DENSE, dimred, sparse
from nets import MODELS
from turns import Times, in_turns, ratio

DENSITIES = (0.2, 0.1, 0.05, 0.02, 0.01)
MEMORY_AT = 0.05
#: batch size, rounds, and steps in a round: several of short steps, since in a training they find
#: caches as the step before leaves them, not as another candidate does
EFFORT = {
    "LeNet-300-100": (128, 40, 10),
    "MLP-2048": (128, 15, 10),
    "LeNet-5": (128, 15, 5),
    "ResNet-20": (128, 9, 1),
    "VGG-16": (64, 5, 1),
}


def times(name: str, quick: bool) -> Times:
    batch_size, rounds, count = EFFORT[name]
    model = MODELS[name]
    batch, ways = model.batch(batch_size), {**DENSE, "dimred dense": dimred(MEMORY_AT, "dense")}
    if quick:
        rounds //= 2
        del ways["compiled"]
    for density in DENSITIES:
        of_density = sparse(name, density)
        ways |= {f"{who} {density:.0%}": make for who, make in of_density.items()}
    return in_turns(
        {who: make(model.build(), batch).step for who, make in ways.items()}, rounds, count
    )


def lines(name: str, found: Times) -> list[str]:
    """The dense candidates, and the sparse ones at every density."""
    plain = found["plain"]
    dense = [who for who in DENSE if who in found]
    best = min(dense, key=lambda who: median(found[who]))
    shown = [f"| {name} | plain | {1e3 * median(plain):.2f} ms" + " |" * len(DENSITIES)]
    for who in [*dense, "dimred dense"][1:]:
        shown.append(f"| {name} | {who} | {ratio(plain, found[who]):.2f}" + " |" * len(DENSITIES))
    for who in sparse(name, MEMORY_AT):
        cells = []
        for density in DENSITIES:
            taken = found[f"{who} {density:.0%}"]
            cells.append(f"{ratio(plain, taken):.2f} ({ratio(found[best], taken):.2f})")
        shown.append(f"| {name} | {who} | {' | '.join(cells)} |")
    return shown


def main() -> None:
    torch.manual_seed(0)
    quick = "--quick" in sys.argv
    names = [name for name in sys.argv[1:] if name != "--quick"] or [*MODELS]
    machine = f"{platform.machine()}, load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores"
    print(f"torch {torch.__version__} on {torch.get_num_threads()} threads, {machine}\n")
    densities = " | ".join(f"{density:.0%}" for density in DENSITIES)
    print(f"| model | candidate | {densities} |\n|---|---|" + "---|" * len(DENSITIES))
    for name in names:
        print("\n".join(lines(name, times(name, quick))), flush=True)
    if quick:
        return
    if not memory.STATUS.exists():
        print("\nThis system has no /proc: memory is not measured.")
        return
    print(f"\nAt a density of {MEMORY_AT:.0%}:\n")
    print("| model | candidate | state of the weights | peak |\n|---|---|---|---|")
    for name in names:
        who = ["plain", "channels_last", "oneDNN", "dimred dense", *sparse(name, MEMORY_AT)]
        for line in memory.rows(name, who, EFFORT[name][0], MEMORY_AT):
            print(line, flush=True)


if __name__ == "__main__":
    main()
