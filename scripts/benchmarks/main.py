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
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import input as data_input
import start
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from dimred.methods.dynamic_sparse_training.rigl import RigL
from dimred.models import lenet5, lenet300, resnet, vgg
from dimred.net import Net
from dimred.net.state import state_bytes
from dimred.scores import magnitude, random_scores
from dimred.select.allocations import ERK
from dimred.select.rewiring import drop, grow
from dimred.select.topk import topk

DENSITY = 0.05
Step = Callable[[], None]
INITS = {"init": "kaiming_normal", "pretrained": None}
MODELS = [  # name, builder, image shape, batch size, rounds, steps in a round
    (
        "LeNet-300-100",
        lambda: lenet300(shape=(1, 28, 28), classes=10, **INITS),
        (1, 28, 28),
        100,
        60,
        20,
    ),
    (
        "LeNet-5",
        lambda: lenet5(shape=(1, 28, 28), classes=10, relu=True, **INITS),
        (1, 28, 28),
        100,
        30,
        5,
    ),
    (
        "ResNet-20",
        lambda: resnet(shape=(3, 32, 32), classes=10, depth=20, width=1, shortcut="conv", **INITS),
        (3, 32, 32),
        64,
        12,
        1,
    ),
    (
        "VGG-16",
        lambda: vgg(shape=(3, 32, 32), classes=10, depth=16, **INITS),
        (3, 32, 32),
        32,
        8,
        1,
    ),
]


def covered(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def sgd(parameters: object) -> torch.optim.SGD:
    # A learning rate near zero: in a net that memorises the batch, max-pooling becomes up to twice
    # as fast (branches are predicted better), in dense nets sooner than in sparse ones. That would
    # distort the comparison.
    return torch.optim.SGD(parameters, lr=1e-9, momentum=0.9)  # type: ignore[arg-type]


def size(*tensors: Tensor | None) -> int:
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def training(
    model: Callable[[Tensor], Tensor], optimizer: torch.optim.SGD, batch: tuple[Tensor, Tensor]
) -> Step:
    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(batch[0]), batch[1]).backward()
        optimizer.step()

    return step


def plain(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Step, Callable[[], int]]:
    optimizer = sgd(model.parameters())
    return training(model, optimizer, batch), lambda: sum(
        size(m.weight, m.weight.grad, optimizer.state[m.weight]["momentum_buffer"])
        for m in covered(model)
    )


def pruned(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Step, Callable[[], int]]:
    """torch.nn.utils.prune: a mask buffer and a forward hook."""
    for module in covered(model):
        prune.random_unstructured(module, "weight", amount=1 - DENSITY)
    optimizer = sgd(model.parameters())
    return training(model, optimizer, batch), lambda: sum(
        size(
            m.weight,
            m.weight_mask,
            m.weight_orig,
            m.weight_orig.grad,
            optimizer.state[m.weight_orig]["momentum_buffer"],
        )
        for m in covered(model)
    )


def masked(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Step, Callable[[], int]]:
    """The loop of most paper code: multiply the weights by their masks after every step."""
    masks = {m: (torch.rand_like(m.weight) < DENSITY).float() for m in covered(model)}
    inner, dense_state = plain(model, batch)

    def step() -> None:
        inner()
        with torch.no_grad():
            for module, mask in masks.items():
                module.weight.mul_(mask)

    return step, lambda: dense_state() + size(*masks.values())


def ours(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Step, Callable[[], int]]:
    net = Net(model, initial=dict)
    net.keep(topk(random_scores(net), round(DENSITY * net.total)))
    net.optimizer = sgd(net.parameters().values())
    return training(net, net.optimizer, batch), partial(state_bytes, net)


CONTESTANTS = {"plain dense": plain, "dimred": ours, "prune": pruned, "mask loop": masked}


def contest(
    name: str,
    build: Callable[[], nn.Module],
    shape: tuple[int, ...],
    n: int,
    rounds: int,
    steps: int,
) -> str:
    batch = torch.randn(n, *shape), torch.randint(10, (n,))
    pairs = {who: make(build(), batch) for who, make in CONTESTANTS.items()}
    times: dict[str, list[float]] = {who: [] for who in pairs}
    for i in range(rounds + 2):
        turn = i % len(
            pairs
        )  # each goes first in its turn: what ran before it warms or cools the caches
        for who in [*list(pairs)[turn:], *list(pairs)[:turn]]:
            step, _ = pairs[who]
            start = time.perf_counter()
            for _ in range(steps):
                step()
            if i >= 2:  # the first rounds warm up
                times[who].append((time.perf_counter() - start) / steps)
    dense = pairs["plain dense"][1]()
    cells = [f"{1e3 * median(times['plain dense']):.2f} ms"]
    cells += [
        f"{median(a / b for a, b in zip(times[who], times['plain dense'], strict=True)):.2f}x"
        for who in pairs
        if who != "plain dense"
    ]
    cells += [
        f"{dense / 1e6:.2f} MB",
        *(f"{pairs[who][1]() / dense:.2f}x" for who in pairs if who != "plain dense"),
    ]
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
        start = time.perf_counter()
        net.keep(grow(drop(net, magnitude(net), counts), gradient, counts))
        taken.append(time.perf_counter() - start)
    return (
        f"| {RigL.__name__} update, {name}, {density:.0%} density | {1e3 * median(taken):.1f} ms |"
    )


def selecting(n: int) -> str:
    scores, taken = {"weight": torch.rand(n)}, []
    for _ in range(5):
        start = time.perf_counter()
        topk(scores, n // 20)
        taken.append(time.perf_counter() - start)
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
    for row in MODELS:
        if len(sys.argv) < 2 or row[0] in sys.argv[1:]:
            print(contest(*row), flush=True)
    print("\n| what | time |\n|---|---|")
    print(rewiring("one layer of 2.4 million weights", nn.Linear(1536, 1600, bias=False), 0.1))
    print(rewiring("ResNet-20", MODELS[2][1](), 0.05))
    print(selecting(25_000_000))
    for header, *lines in (data_input.rows(), start.rows()):
        print("\n| " + " | ".join(header) + " |\n|---|---|---|---|")
        for cells in lines:
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
