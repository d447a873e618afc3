"""The predictions of docs/scale.md beside measured runs and steps."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from run_bytes import folder
from run_costs import DATA, OF_KIN, built, flops, images

from dimred.net import Net
from dimred.report.compose import Json
from dimred.report.runs import Run, find_runs
from dimred.scores import random_scores
from dimred.select.topk import topk


# -- finished runs --------------------
def check(place: Path) -> list[str]:
    """Predict finished runs here: images by their configuration, seconds by the median time of a
    step, and the bytes of their folders."""
    lines = [
        "| model | runs | steps, wrong | seconds, ours / predicted (quartiles) | bytes |",
        "|---|---|---|---|---|",
    ]
    groups = defaultdict[str, list[Run]](list)
    for run in find_runs(place):
        if run.state == "done":
            groups[f"{run.result['model']}, {run.result['data']}"].append(run)
    for name, runs in groups.items():
        size = runs[0].description["recipe"]["batch_size"]
        step = median(run.result["step_seconds"] for run in runs)
        wrong = sum(images(run.description) != run.result["steps"] * size for run in runs)
        seconds = [r.result["seconds"] / (images(r.description) / size * step) for r in runs]
        sizes = [bytes_in(run.folder) / folder(run.description) for run in runs]
        cells = (name, f"{len(runs)}", f"{wrong}", spread(seconds), spread(sizes))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def bytes_in(place: Any) -> int:
    return sum(file.stat().st_size for file in Path(place).rglob("*") if file.is_file())


def spread(ratios: Sequence[float]) -> str:
    low, middle, high = quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


# -- training steps --------------------
class Case(NamedTuple):
    """A network and the images that it trains on."""

    name: str
    model: Json
    data: str

    @property
    def flops(self) -> int:
        return flops(self.model, self.data)


def resnet(depth: int, width: int) -> Json:
    return {"_target_": "resnet", "depth": depth, "width": width, "shortcut": "conv"}


#: of each kind, the network that is measured, and those that are taken for as fast by their FLOPs
KINDS = (
    [
        Case("ResNet-20", *OF_KIN["resnet20"]),
        Case("ResNet-56", resnet(56, 1), "CIFAR10"),
    ],
    [
        Case("WRN-28-2", *OF_KIN["wrn28_2"]),
        Case("WRN-22-2", {"_target_": "wide_resnet", "depth": 22, "width": 2}, "CIFAR10"),
        Case("ResNet-32, twice as wide", resnet(32, 2), "CIFAR100"),
    ],
    [
        Case("VGG-16", *OF_KIN["vgg16"]),
        Case("VGG-16", {"_target_": "vgg", "depth": 16}, "TinyImageNet"),
        Case("VGG-11", {"_target_": "vgg", "depth": 11}, "TinyImageNet"),
        Case("VGG-19", {"_target_": "vgg", "depth": 19}, "CIFAR100"),
        Case("ResNet-18", {"_target_": "resnet18", "width": 1}, "CIFAR10"),
        Case("ResNet-18", {"_target_": "resnet18", "width": 1}, "TinyImageNet"),
    ],
    [
        Case("LeNet-300-100", {"_target_": "lenet300"}, "MNIST"),
        Case("LeNet-5", {"_target_": "lenet5", "relu": True}, "MNIST"),
        Case("784-200-200-10", {"_target_": "mlp", "hidden": [200, 200]}, "MNIST"),
    ],
)
BATCH, REPEATS = 32, 7
SPARSE = (0.1, 0.02)  # densities


def steps() -> list[str]:
    """The time of a training step of each network on one core, relative to what its FLOPs predict
    from the measured network of its kind; and of the measured one at other densities."""
    lines = [
        "| network | data | density | ms | measured / predicted |",
        "|---|---|---|---|---|",
    ]
    torch.set_num_threads(1)
    for measured, *others in KINDS:
        rows = [(measured, 1.0), *((measured, d) for d in SPARSE), *((o, 1.0) for o in others)]
        times = shortest([step_of(case, density) for case, density in rows])
        for (case, density), seconds in zip(rows, times, strict=True):
            predicted = times[0] * case.flops / measured.flops
            cells = (case.name, case.data, f"{density:g}", f"{1e3 * seconds:.3g}")
            lines.append(f"| {' | '.join(cells)} | {seconds / predicted:.2f} |")
    return lines


def shortest(work: Sequence[Callable[[], None]]) -> list[float]:
    """The shortest time of each, timed in turn, in seconds of a processor: those of the clock count
    the other work of the machine."""
    rounds = [[processor_seconds(each) for each in work] for _ in range(REPEATS)]
    return [min(times) for times in zip(*rounds, strict=True)]


def processor_seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def step_of(case: Case, density: float) -> Callable[[], None]:
    """A training step with dense products: forward, backward and SGD with momentum."""
    net, about = built(case.model, case.data), DATA[case.data]
    if density < 1:
        net.keep(topk(random_scores(net, "scale"), round(density * net.total)))
    examples = torch.randn(BATCH, *about.shape), torch.randint(about.classes, (BATCH,))
    optimizer = torch.optim.SGD(net.parameters().values(), lr=1e-9, momentum=0.9)
    return lambda: take_step(net, optimizer, *examples)


def take_step(
    net: Net, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, labels: torch.Tensor
) -> None:
    optimizer.zero_grad()
    F.cross_entropy(net(inputs), labels).backward()
    optimizer.step()
