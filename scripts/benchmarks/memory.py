"""Memory of training steps, each candidate in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import torch

STEPS, MB = 3, 1e6
STATUS = Path("/proc/self/status")


def resident(key: str) -> int:
    """Bytes: VmRSS now, or VmHWM at the peak."""
    line = next(each for each in STATUS.read_text().splitlines() if each.startswith(key))
    return 1024 * int(line.split()[1])


def measured(name: str, who: str, batch_size: int, density: float) -> tuple[int, int]:
    """Bytes of a candidate's state, and at the peak beyond what the imports and a tiny training
    take. Called in a new process."""
    from candidates import DENSE, dimred, sparse
    from nets import MODELS, training

    ways = {**DENSE, "dimred dense": dimred(density, "dense"), **sparse(name, density)}
    model, tiny = MODELS[name], torch.nn.Linear(1, 2)
    optimizer = torch.optim.SGD(tiny.parameters(), lr=0.1, momentum=0.9)
    training(tiny, optimizer, (torch.ones(4, 1), torch.zeros(4, dtype=torch.int64)))()
    before = resident("VmRSS")
    candidate = ways[who](model.build(), model.batch(batch_size))
    for _ in range(STEPS):
        candidate.step()
    return candidate.state(), resident("VmHWM") - before


def rows(name: str, names: Sequence[str], batch_size: int, density: float) -> list[str]:
    """A line of a table for each candidate."""
    found = []
    for who in names:
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            state, peak = alone.apply(measured, (name, who, batch_size, density))
        found.append(f"| {name} | {who} | {state / MB:.1f} MB | {peak / MB:.0f} MB |")
    return found
