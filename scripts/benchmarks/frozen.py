"""How much faster a training step is when the first layers are frozen.

The first blocks of ResNet-20, and all but the output layer of LeNet-5, are frozen with the
statistics of their norms. Nets in which everything trains, in which the layers are frozen, and
whose frozen layers are cached (recipe.cache_frozen_mb) take steps in turn. Shown are the seconds
that computing the activations took, and times a step faster than if everything trains.

    scripts/benchmarks/frozen.py [--steps N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import torch
from torch import nn

from dimred.data.arrays import Examples
from dimred.data.memory import Memory
from dimred.models import lenet5, resnet
from dimred.net import Net
from dimred.training.loop import Train
from dimred.training.recipe import Recipe

BATCH, EXAMPLES = 128, 2560
PLAIN = {"init": "kaiming_normal", "pretrained": None}


class Noise(Memory):
    """Random images."""

    name = "noise"

    def __init__(self, *shape: int) -> None:
        self.image = shape
        super().__init__(
            val_fraction=0.0, resize=None, mean=None, std=None, crop_padding=0, flip=False
        )

    def read(self) -> tuple[Examples, ...]:
        draws = torch.Generator().manual_seed(0)
        sizes = (EXAMPLES, 128)
        images = [torch.randint(256, (n, *self.image), generator=draws) for n in sizes]
        labels = [torch.arange(n) % 10 for n in sizes]
        return tuple(
            Examples(each.to(torch.uint8), label)
            for each, label in zip(images, labels, strict=True)
        )


def resnet20() -> nn.Module:
    return resnet(shape=(3, 32, 32), classes=10, depth=20, width=1, shortcut="conv", **PLAIN)


def lenet() -> nn.Module:
    return lenet5(shape=(1, 28, 28), classes=10, relu=True, **PLAIN)


CASES: list[tuple[str, Any, tuple[int, ...], Sequence[str]]] = [
    ("ResNet-20, 6 of 9 blocks", resnet20, (3, 32, 32), ("stage3", "fc")),
    ("ResNet-20, 8 of 9 blocks", resnet20, (3, 32, 32), ("stage3.2", "fc")),
    ("ResNet-20, all but the output layer", resnet20, (3, 32, 32), ("fc",)),
    ("LeNet-5, all but the output layer", lenet, (1, 28, 28), ("fc2",)),
]


def steps(model: nn.Module, data: Noise, trained: Sequence[str], cached: bool) -> Iterator[int]:
    net = Net(model)
    if trained:
        statistics = [n for n, _ in model.named_buffers() if n.endswith("running_mean")]
        names = [*net.parameters(), *statistics]
        net.freeze(dict.fromkeys(n for n in names if not n.startswith(tuple(trained))))
    recipe = Recipe(batch_size=BATCH, epochs=10**6, lr=1e-9, cache_frozen_mb=4000 * cached)
    return iter(Train(net, data, recipe).steps())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=15)
    count = parser.parse_args().steps
    print(f"{torch.get_num_threads()} threads, batches of {BATCH}\n")
    print("| frozen | frozen alone | cached | activations of an example |")
    print("|---|---|---|---|")
    for name, build, shape, trained in CASES:
        data = Noise(*shape)
        ways = {
            "whole": steps(build(), data, (), False),
            "frozen": steps(build(), data, trained, False),
            "cached": steps(build(), data, trained, True),
        }
        first: dict[str, float] = {}
        times: dict[str, list[float]] = {way: [] for way in ways}
        for k in range(count + 2):
            for way, each in ways.items():
                start = time.perf_counter()
                next(each)
                taken = time.perf_counter() - start
                if k == 0:
                    first[way] = taken
                elif k > 1:
                    times[way].append(taken)
        seconds = {way: median(each) for way, each in times.items()}
        once = 1e3 * (first["cached"] - first["frozen"]) / (EXAMPLES + 128)
        speed = [f"{seconds['whole'] / seconds[way]:.2f}x" for way in ("frozen", "cached")]
        print(f"| {name} | {' | '.join(speed)} | {once:.2f} ms |", flush=True)


if __name__ == "__main__":
    main()
