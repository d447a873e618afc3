"""A residual net to remove channels from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimred import models

IMAGES = torch.zeros(1, 3, 16, 16)


class Residual(nn.Module):
    """3 channels - stem 4 - (a 2 - b 4, added to the stem) - flatten 2 x 2 - 5 - 2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(4, 2, 3, padding=1),
            nn.Conv2d(2, 4, 1),
        )
        self.norm, self.fc, self.out = nn.BatchNorm2d(4), nn.Linear(16, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.norm(self.b(F.relu(self.a(x))))
        return self.out(F.relu(self.fc(F.adaptive_avg_pool2d(x, 2).flatten(1))))


def table(numbers: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: number.tolist() for name, number in numbers.items()}


SMALL = {"init": "kaiming_normal", "pretrained": None}


COLOUR: dict[str, Any] = {"shape": (3, 16, 16), "classes": 5, **SMALL}


ZOO: dict[str, Callable[[], nn.Module]] = {
    "lenet5": lambda: models.lenet5(relu=True, **COLOUR),
    "lenet300": lambda: models.lenet300(**COLOUR),
    "vgg11": lambda: models.vgg(depth=11, **COLOUR),
    "conv2": lambda: models.convnet(depth=2, **COLOUR),
    "resnet20": lambda: models.resnet(depth=20, width=1, shortcut="conv", **COLOUR),
    "resnet20-pad": lambda: models.resnet(depth=20, width=1, shortcut="pad", **COLOUR),
    "wrn": lambda: models.wide_resnet(depth=10, width=1, **COLOUR),
    "mobilenet": lambda: models.mobilenet(width=0.25, stem_stride=1, **COLOUR),
    "residual": Residual,
    "grouped": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.PReLU(8),
        nn.Conv2d(8, 16, 3, groups=4),
        nn.PReLU(),
        nn.Dropout(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    ),
}
