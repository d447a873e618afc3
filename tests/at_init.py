"""Networks, batches and settings for tests of pruning at initialisation."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy import set_up

from dimred.methods.pruning_at_init.base import PruningAtInit
from dimred.methods.pruning_at_init.cops import COPS
from dimred.methods.pruning_at_init.iterative import FORCE, NTKSAP, IterSNIP, SynFlow
from dimred.methods.pruning_at_init.phew import PHEW
from dimred.methods.pruning_at_init.single_shot import (
    LAMP,
    SNIP,
    CroP,
    FreezeNet,
    GraSP,
    Magnitude,
    ProsPr,
    Random,
)
from dimred.methods.pruning_at_init.transfer import NTT
from dimred.net import Net
from dimred.scores import (
    masked,
)
from dimred.select.allocations import Global


def mlp(*sizes: int, bias: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        module
        for i, o in itertools.pairwise(sizes)
        for module in (nn.Linear(i, o, bias=bias), nn.ReLU())
    ]
    return nn.Sequential(*layers[:-1])


def lenet300() -> nn.Sequential:
    return mlp(784, 300, 100, 10)


def lenet5() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )


class Residual(nn.Module):
    """A stem, a block with an identity, a depthwise convolution with appended channels, a Linear
    layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.one, self.two = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3),
            nn.Conv2d(4, 4, 1),
        )
        self.depthwise, self.wide = nn.Conv2d(4, 4, 2, groups=4), nn.Conv2d(4, 6, 1)
        self.norm, self.fc = nn.BatchNorm2d(4), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.two(F.relu(self.one(x), inplace=True)) + x[:, :, 1:-1, 1:-1])
        x = self.depthwise(x)
        x = self.wide(x) + F.pad(x, (0, 0, 0, 0, 0, 2))
        return self.fc(x.mean((2, 3)))


def batch(n: int = 12, inputs: int = 6, classes: int = 3) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(1)
    return torch.randn(n, inputs, generator=draws, dtype=torch.float64), torch.arange(n) % classes


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def supports_of(method: PruningAtInit, **recipe: object) -> dict[str, Tensor]:
    net, train = set_up(steps=1, **recipe)
    method.run(net, train)
    return {name: w.trained() for name, w in net.weights.items()}


MORE: dict[type, dict[str, Any]] = {
    Random: {},
    Magnitude: {},
    LAMP: {},
    SNIP: {"examples": 32},
    FreezeNet: {"examples": 32},
    GraSP: {"examples_per_class": 5},
    CroP: {"examples": 16, "batches": 3},
    ProsPr: {"examples": 16},
    PHEW: {},
    COPS: {"subject_to": ("synflow", "grasp"), "levels": (0.9, 0.3), "examples": 32},
    IterSNIP: {"rounds": 6, "examples": 16},
    FORCE: {"rounds": 6, "schedule": "linear", "examples": 16},
    SynFlow: {"rounds": 10},
    NTKSAP: {"rounds": 3, "examples": 8, "draws": 2},
    NTT: {"transfer_steps": 16, "transfer_batch_size": 8, "weight_decay": 1e-4, "update_every": 5},
}


CLASSES = list(MORE)


def make(
    kind: type,
    sparsity: float = 0.8,
    allocation: object = None,
    base: str = "zero",
    ablation: str = "none",
    **more: Any,
) -> PruningAtInit:
    return kind(
        sparsity=sparsity,
        allocation=allocation or Global(),
        base=base,
        ablation=ablation,
        **MORE[kind] | more,
    )


def supports_same(one: PruningAtInit, other: PruningAtInit) -> bool:
    return same(supports_of(one), supports_of(other))


def rounds_of(method: IterSNIP, net: Net, train: object) -> list[dict[str, Tensor]]:
    """The masks after every round."""
    masks: list[dict[str, Tensor]] = []
    best = type(method).best

    def watched(*arguments: object) -> object:
        supports = best(method, *arguments)  # type: ignore[arg-type]
        ones = {name: torch.ones_like(theta) for name, theta in net.dense_weights().items()}
        masks.append({name: mask > 0 for name, mask in masked(ones, supports).items()})
        return supports

    object.__setattr__(method, "best", watched)  # the method is frozen
    method.choose(net, train)  # type: ignore[arg-type]
    return masks
