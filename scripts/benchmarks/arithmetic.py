"""A training step with sparse arithmetic on a CPU, relative to plain dense PyTorch.

    ./scripts/bench arithmetic [MODEL ...]

All candidates of a row take steps in turn, in one process, in another order in every round, as each
finds the caches as the one before leaves them. A time is the median over the rounds, a ratio the
median of the ratios within a round: above 1 is faster than plain dense PyTorch.
"""

from __future__ import annotations

from dimred.runs.environment import prepare_process

prepare_process()  # as the command line does, before torch is imported

import random
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimred.models import lenet5, lenet300, resnet, vgg
from dimred.net import Net
from dimred.scores import random_scores
from dimred.select.topk import topk
from dimred.training.arithmetic import Arithmetic
from dimred.training.recipe import Recipe

DENSITIES = (0.2, 0.1, 0.05, 0.02, 0.01)
INITS = {"init": "kaiming_normal", "pretrained": None}
Step = Callable[[], object]


def mlp() -> nn.Module:
    linear = nn.Linear
    layers = [linear(784, 2048), nn.ReLU(), linear(2048, 2048), nn.ReLU(), linear(2048, 10)]
    return nn.Sequential(nn.Flatten(), *layers)


MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, int, int]] = {
    # name: builder, shape of images, batch size, rounds, steps in a round
    "LeNet-300-100": (lambda: lenet300(shape=MNIST, classes=10, **INITS), MNIST, 128, 60, 10),
    "MLP-2048": (mlp, MNIST, 128, 15, 2),
    "LeNet-5": (lambda: lenet5(shape=MNIST, classes=10, relu=True, **INITS), MNIST, 128, 15, 2),
    "ResNet-20": (
        lambda: resnet(shape=CIFAR, classes=10, depth=20, width=1, shortcut="conv", **INITS),
        CIFAR,
        128,
        9,
        1,
    ),
    "VGG-16": (lambda: vgg(shape=CIFAR, classes=10, depth=16, **INITS), CIFAR, 64, 5, 1),
}


def sgd(parameters: Iterator[nn.Parameter]) -> torch.optim.SGD:
    # near zero: what a network has learned changes the speed of max-pooling
    return torch.optim.SGD(parameters, lr=1e-9, momentum=0.9)


def plain(model: nn.Module, batch: tuple[Tensor, Tensor], channels_last: bool) -> Step:
    images, labels = batch
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimizer = sgd(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def ours(model: nn.Module, batch: tuple[Tensor, Tensor], density: float, kind: str) -> Step:
    """A step of dimred with the recipes' default layout."""
    net, recipe = Net(model, initial=dict), Recipe(arithmetic=kind)
    net.keep(topk(random_scores(net), round(density * net.total)))
    optimizer = sgd(iter(net.parameters().values()))
    arithmetic = Arithmetic(net, recipe)
    images, labels = batch

    def gradients() -> None:
        with net.weights_in_place(channels_last=True) as live:
            F.cross_entropy(recipe.logits(live, images), labels).backward()

    def step() -> None:
        optimizer.zero_grad()
        arithmetic.prepare(gradients)
        gradients()
        optimizer.step()

    return step


def times(steps: dict[str, Step], rounds: int, count: int) -> dict[str, list[float]]:
    """Seconds of each step in each round, the mean of `count` of them."""
    found: dict[str, list[float]] = {who: [] for who in steps}
    for i in range(rounds + 2):
        for who in random.sample([*steps], len(steps)):
            start = time.perf_counter()
            for _ in range(count):
                steps[who]()
            if i >= 2:  # the first rounds warm up
                found[who].append((time.perf_counter() - start) / count)
    return found


def row(name: str, density: float) -> str:
    build, shape, size, rounds, count = MODELS[name]
    batch = torch.randn(size, *shape), torch.randint(10, (size,))
    steps = {
        "plain": plain(build(), batch, False),
        "channels_last": plain(build(), batch, True),
        **{kind: ours(build(), batch, density, kind) for kind in ("dense", "sparse", "auto")},
    }
    found = times(steps, rounds, count)
    cells = [f"{1e3 * median(found['plain']):.2f} ms"]
    for who in list(steps)[1:]:
        pairs = zip(found["plain"], found[who], strict=True)
        cells.append(f"{median(a / b for a, b in pairs):.2f}")
    return f"| {name} | {density:.0%} | {' | '.join(cells)} |"


def main() -> None:
    torch.manual_seed(0)
    print(f"torch {torch.__version__} on {torch.get_num_threads()} threads\n")
    columns = "dense PyTorch | its channels_last | dimred dense | sparse | auto"
    print(f"| model | density | {columns} |\n|---|---|---|---|---|---|---|", flush=True)
    for name in sys.argv[1:] or MODELS:
        for density in DENSITIES:
            print(row(name, density), flush=True)


if __name__ == "__main__":
    main()
