"""Memory and time of training steps whose weights are kept, or written when they are used.

A step is a forward and a backward pass and SGD with momentum. The state are theta, psi, positions,
gradients and momentum of the covered weights; the peak is the most that a process takes in steps,
beyond the imports, each candidate in a process of its own. Dense is plain PyTorch. For their times,
steps take turns in one process. Linux only.

    ./scripts/bench rewritten [MODEL ...]
"""

from __future__ import annotations

from dimred.runs.environment import prepare_process

prepare_process()  # as the command line does, before torch is imported

import ctypes
import multiprocessing
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from memory import MB, STEPS, resident
from nets import Batch, covered, sgd, state_size, training
from torch import nn
from torchvision import models
from turns import in_turns, ratio

from dimred.models import vgg
from dimred.net import Net
from dimred.net.state import state_bytes
from dimred.scores import random_scores
from dimred.select.topk import topk


class Case(NamedTuple):
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch_size: int
    density: float


CASES = {
    "VGG-16": Case(
        partial(
            vgg, shape=(3, 32, 32), classes=10, depth=16, init="kaiming_normal", pretrained=None
        ),
        (3, 32, 32),
        32,
        0.05,
    ),
    "ResNet-50": Case(models.resnet50, (3, 224, 224), 2, 0.1),
    "ViT-B/16": Case(models.vit_b_16, (3, 224, 224), 2, 0.1),
}
WAYS = ("dense", "kept", "rewritten")
Step = Callable[[], object]
ROUNDS = 5


def candidate(name: str, way: str) -> tuple[Step, Callable[[], int]]:
    """A training step, and the bytes of the state."""
    case = CASES[name]
    model = case.build()
    batch = torch.randn(case.batch_size, *case.shape), torch.randint(10, (case.batch_size,))
    if way == "dense":
        optimizer = sgd(model.parameters())
        names = {f"{n}.weight" for n, each in model.named_modules() if each in covered(model)}
        weights = [p for n, p in model.named_parameters() if n in names or "in_proj_weight" in n]
        return training(model, optimizer, batch), lambda: state_size(weights, optimizer)
    return sparse(model, way, case.density, batch)


def sparse(
    model: nn.Module, way: str, density: float, batch: Batch
) -> tuple[Step, Callable[[], int]]:
    net = Net(model, initial=dict)
    net.keep(topk(random_scores(net), round(density * net.total)))
    if way == "rewritten":
        net.rewrite_theta()
    net.optimizer = optimizer = sgd(net.parameters().values())

    def step() -> None:
        optimizer.zero_grad()
        with net.weights_in_place() as live:
            F.cross_entropy(live(batch[0]), batch[1]).backward()
        optimizer.step()

    return step, partial(state_bytes, net)


def measured(name: str, way: str) -> tuple[int, int]:
    """Bytes of the state, and at the peak. Called in a new process."""
    tiny, batch = nn.Linear(1, 2), (torch.ones(4, 1), torch.zeros(4, dtype=torch.int64))
    training(tiny, sgd(tiny.parameters()), batch)()
    before = resident("VmRSS")
    step, state = candidate(name, way)
    # what choosing a support took is no part of training
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    for _ in range(STEPS):
        step()
    return state(), resident("VmHWM") - before


def rows(name: str) -> list[str]:
    sizes = {}
    for way in WAYS:
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            sizes[way] = alone.apply(measured, (name, way))
    times = in_turns({way: candidate(name, way)[0] for way in WAYS}, ROUNDS)
    found = []
    for way, (state, peak) in sizes.items():
        bytes_ = f"{state / MB:.1f} MB ({state / sizes['dense'][0]:.2f})"
        beyond = f"{peak / MB:.0f} MB ({peak / sizes['dense'][1]:.2f})"
        found.append(
            f"| {name} | {way} | {bytes_} | {beyond} | {ratio(times[way], times['dense']):.2f} |"
        )
    return found


def main() -> None:
    torch.set_num_threads(1)
    print("| (of dense) | weights | state of covered weights | peak | time of a step |")
    print("|---|---|---|---|---|")
    for name in sys.argv[1:] or CASES:
        for row in rows(name):
            print(row, flush=True)


if __name__ == "__main__":
    main()
