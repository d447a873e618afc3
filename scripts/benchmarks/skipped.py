"""How much faster training steps are without what they need not compute.

Frozen: the first blocks of ResNet-20, and all but the output layer of it and of LeNet-5, with the
statistics of their norms, computed or cached (recipe.cache_frozen_mb). Removed: a fraction of the
channels of every layer, computed as zeros or skipped (recipe.skip_removed_channels). The nets of a
row take their steps in turn. Shown is how many times a step is faster than if the whole net trains,
and the time in which the activations of one example were computed.

    scripts/benchmarks/skipped.py [--steps N]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

import torch
from nets import CIFAR, MODELS
from torch import nn
from turns import in_turns

from dimred.channels.selection import Channels
from dimred.data.arrays import Examples
from dimred.data.memory import Memory
from dimred.net import Net
from dimred.training.loop import Train
from dimred.training.recipe import Recipe
from dimred.training.timing import seconds_of

BATCH, EXAMPLES = 128, 2560


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


#: a row, its model, and what of it trains
FROZEN: list[tuple[str, str, Sequence[str]]] = [
    ("ResNet-20, 6 of 9 blocks", "ResNet-20", ("stage3", "fc")),
    ("ResNet-20, 8 of 9 blocks", "ResNet-20", ("stage3.2", "fc")),
    ("ResNet-20, all but the output layer", "ResNet-20", ("fc",)),
    ("LeNet-5, all but the output layer", "LeNet-5", ("fc2",)),
]
#: batch sizes
REMOVED = {"ResNet-20": 128, "VGG-16": 64}


def steps(net: Net, data: Noise, batch_size: int = BATCH, **recipe: float) -> Iterator[int]:
    settings = Recipe(batch_size=batch_size, epochs=10**6, lr=1e-9, **recipe)  # type: ignore[arg-type]
    return iter(Train(net, data, settings).steps())


def times(ways: dict[str, Iterator[int]], count: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of the first step of each, and of a later one."""
    steps = {way: partial(next, each) for way, each in ways.items()}
    first = {way: seconds_of(step) for way, step in steps.items()}
    later = in_turns(steps, count, warm_up=1)
    return first, {way: median(taken) for way, taken in later.items()}


def frozen(model: nn.Module, trained: Sequence[str]) -> Net:
    net = Net(model)
    statistics = [name for name, _ in model.named_buffers() if name.endswith("running_mean")]
    names = [*net.parameters(), *statistics]
    net.freeze(dict.fromkeys(name for name in names if not name.startswith(tuple(trained))))
    return net


def without(model: nn.Module, fraction: float) -> Net:
    net = Net(model)
    channels = Channels(net, torch.zeros(1, *CIFAR))
    kept = channels.everything()
    for members in channels.coupled_groups():
        kept[members[max(1, round((1 - fraction) * len(members))) :]] = False
    channels.keep(kept)
    return net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=15)
    count = parser.parse_args().steps
    print(f"{torch.get_num_threads()} threads\n")
    print("| frozen | computed | cached | activations of an example |")
    print("|---|---|---|---|")
    for name, model, trained in FROZEN:
        build, shape = MODELS[model]
        data = Noise(*shape)
        ways = {
            "whole": steps(Net(build()), data),
            "computed": steps(frozen(build(), trained), data),
            "cached": steps(frozen(build(), trained), data, cache_frozen_mb=4000),
        }
        first, later = times(ways, count)
        once = 1e3 * (first["cached"] - first["computed"]) / sum(data.sizes.values())
        speed = [f"{later['whole'] / later[way]:.2f}x" for way in ("computed", "cached")]
        print(f"| {name} | {' | '.join(speed)} | {once:.2f} ms |", flush=True)
    print("\n| removed channels | computed | skipped |\n|---|---|---|")
    for name, batch_size in REMOVED.items():
        build, shape = MODELS[name]
        for fraction in (0.1, 0.25, 0.5, 0.75, 0.9):
            data = Noise(*shape)
            ways = {
                "whole": steps(Net(build()), data, batch_size),
                "computed": steps(without(build(), fraction), data, batch_size),
                "skipped": steps(
                    without(build(), fraction), data, batch_size, skip_removed_channels=True
                ),
            }
            _, later = times(ways, count)
            speed = [f"{later['whole'] / later[way]:.2f}x" for way in ("computed", "skipped")]
            print(f"| {name}, {fraction:.0%} | {' | '.join(speed)} |", flush=True)


if __name__ == "__main__":
    main()
