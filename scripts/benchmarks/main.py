"""One table, in one run: what a training step, its state, the input, a rewiring and the start cost,
beside plain PyTorch.

The implementations of a row are timed in turn, step by step, so that other load on the machine
affects all of them alike. Figures are medians over the rounds, ratios are medians of the ratios
within a round."""

from __future__ import annotations

from dimred.runs.environment import prepare_process

prepare_process()  # as the command line does, before torch is imported

import os
import platform
import sys
from collections.abc import Callable
from functools import partial
from statistics import median

import input as data_input
import start
import torch
from nets import MODELS, Batch, Model, covered, resnet20, sgd, size, state_size, training
from torch import nn
from torch.nn.utils import prune
from turns import Step, in_turns, ratio

from dimred.methods.dynamic_sparse_training.rigl import RigL
from dimred.net import Net
from dimred.net.state import state_bytes
from dimred.scores import magnitude, random_scores
from dimred.select.allocations import ERK
from dimred.select.rewiring import drop, grow
from dimred.select.topk import topk
from dimred.training.timing import seconds_of

DENSITY = 0.05
#: batch size, rounds, and steps in a round
EFFORT = {
    "LeNet-300-100": (100, 60, 20),
    "LeNet-5": (100, 30, 5),
    "ResNet-20": (64, 12, 1),
    "VGG-16": (32, 8, 1),
}


def plain(model: nn.Module, batch: Batch) -> tuple[Step, Callable[[], int]]:
    """A training step, and the bytes of its state."""
    optimizer, weights = sgd(model.parameters()), [m.weight for m in covered(model)]
    return training(model, optimizer, batch), lambda: state_size(weights, optimizer)


#: of torch.nn.utils.prune
KEPT = "weight_orig", "weight_mask"


def pruned(model: nn.Module, batch: Batch) -> tuple[Step, Callable[[], int]]:
    """torch.nn.utils.prune: a mask buffer and a forward hook."""
    for module in covered(model):
        prune.random_unstructured(module, "weight", amount=1 - DENSITY)
    optimizer = sgd(model.parameters())
    originals, masks = ([getattr(m, key) for m in covered(model)] for key in KEPT)
    # the masked weights are there, too
    more = size(*masks, *originals)
    return training(model, optimizer, batch), lambda: state_size(originals, optimizer) + more


def masked(model: nn.Module, batch: Batch) -> tuple[Step, Callable[[], int]]:
    """The loop of most paper code: multiply the weights by their masks after every step."""
    masks = {m: (torch.rand_like(m.weight) < DENSITY).float() for m in covered(model)}
    inner, dense_state = plain(model, batch)

    def step() -> None:
        inner()
        with torch.no_grad():
            for module, mask in masks.items():
                module.weight.mul_(mask)

    return step, lambda: dense_state() + size(*masks.values())


def ours(model: nn.Module, batch: Batch) -> tuple[Step, Callable[[], int]]:
    net = Net(model, initial=dict)
    net.keep(topk(random_scores(net), round(DENSITY * net.total)))
    net.optimizer = sgd(net.parameters().values())
    return training(net, net.optimizer, batch), partial(state_bytes, net)


CONTESTANTS = {"plain dense": plain, "dimred": ours, "prune": pruned, "mask loop": masked}


def contest(name: str, model: Model) -> str:
    n, rounds, count = EFFORT[name]
    batch = model.batch(n)
    pairs = {who: make(model.build(), batch) for who, make in CONTESTANTS.items()}
    times = in_turns({who: step for who, (step, _) in pairs.items()}, rounds, count)
    base, state = times["plain dense"], pairs["plain dense"][1]()
    others = [who for who in pairs if who != "plain dense"]
    cells = [f"{1e3 * median(base):.2f} ms"]
    cells += [f"{ratio(times[who], base):.2f}x" for who in others]
    cells += [f"{state / 1e6:.2f} MB", *(f"{pairs[who][1]() / state:.2f}x" for who in others)]
    return f"| {name} (batch {n}) | {' | '.join(cells)} |"


def rewiring(name: str, model: nn.Module, density: float) -> str:
    """One update of RigL's supports, dense gradients at hand."""
    net = Net(model, initial=dict)
    net.keep(topk(random_scores(net), ERK(power=1.0)(net, density)))
    net.optimizer = sgd(net.parameters().values())
    for parameter in net.parameters().values():
        parameter.grad = torch.zeros_like(parameter)
    net.optimizer.step()
    counts = {key: int(0.3 * w.dim) for key, w in net.weights.items()}
    taken = []
    for _ in range(9):
        gradient = {key: torch.rand(w.param.shape) for key, w in net.weights.items()}
        taken.append(seconds_of(partial(update, net, gradient, counts)))
    return (
        f"| {RigL.__name__} update, {name}, {density:.0%} density | {1e3 * median(taken):.1f} ms |"
    )


def update(net: Net, gradient: dict[str, torch.Tensor], counts: dict[str, int]) -> None:
    net.keep(grow(drop(net, magnitude(net), counts), gradient, counts))


def selecting(n: int) -> str:
    scores, taken = {"weight": torch.rand(n)}, []
    for _ in range(5):
        taken.append(seconds_of(partial(topk, scores, n // 20)))
    milliseconds = f"{1e3 * median(taken):.0f} ms"
    return f"| exact selection of 5 % of {n / 1e6:.0f} million weights | {milliseconds} |"


def main() -> None:
    torch.manual_seed(0)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch "
        f"{torch.__version__} on "
        f"{torch.get_num_threads()} threads, Python {platform.python_version()}\n"
    )
    print(
        f"Step: forward, backward and SGD with momentum, at {DENSITY:.0%} density. State: weights, "
        "gradients, "
        "momentum, masks, positions.\n"
    )
    print(
        "| model | plain dense step | dimred | torch prune | mask loop | plain dense state | "
        "dimred | torch prune "
        "| mask loop |\n|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for name in sys.argv[1:] or EFFORT:
        print(contest(name, MODELS[name]), flush=True)
    print("\n| what | time |\n|---|---|")
    print(rewiring("one layer of 2.4 million weights", nn.Linear(1536, 1600, bias=False), 0.1))
    print(rewiring("ResNet-20", resnet20(), 0.05))
    print(selecting(25_000_000))
    for header, *lines in (data_input.rows(), start.rows()):
        print("\n| " + " | ".join(header) + " |\n|---|---|---|---|")
        for cells in lines:
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
