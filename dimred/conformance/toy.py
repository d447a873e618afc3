"""Problems that train in milliseconds: a separable two-class data set, and a small net of every
kind."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dimred.data.base import Data
from dimred.net import Net
from dimred.storage.folder import RunFolder
from dimred.training.loop import Train
from dimred.training.recipe import Recipe


class Blobs(Data):
    """Two separable classes; 64 training examples of 1x4x4."""

    name, classes, shape = "blobs", 2, (1, 4, 4)
    sizes = {"train": 64, "val": 16, "test": 16}  # noqa: RUF012

    def __init__(self, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        self.dtype, self.device = dtype, torch.device(device)

    def to(self, device: torch.device) -> Data:
        return Blobs(self.dtype, str(device))

    def examples(self, n: int, *key: int) -> tuple[Tensor, Tensor]:
        draws = np.random.default_rng(key)
        labels = draws.integers(2, size=n)
        images = draws.normal(size=(n, 1, 4, 4)) + 0.7 * (2 * labels - 1).reshape(n, 1, 1, 1)
        inputs = torch.tensor(images, dtype=self.dtype), torch.tensor(labels)
        return inputs[0].to(self.device), inputs[1].to(self.device)

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for i in range(start, self.steps_per_epoch(batch_size)):
            yield self.examples(batch_size, 1, seed, epoch, i)

    def eval_batches(self, split: str, batch_size: int = 1024) -> Iterator[tuple[Tensor, Tensor]]:
        yield self.examples(self.sizes[split], 2, len(split))

    def sample(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        return self.examples(n, 3, seed)


RECIPE = Recipe(
    optimizer="sgd",
    lr=0.1,
    momentum=0.9,
    nesterov=False,
    weight_decay=1e-3,
    schedule="constant",
    milestones=(),
    gamma=0.1,
    warmup=0.0,
    label_smoothing=0.0,
    clip=None,
    batch_size=8,
    epochs=5,
    steps=None,
    bf16=False,
    channels_last=True,
    compile=False,
)  # 8 steps an epoch, 40 in all


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 12),
        nn.ReLU(),
        nn.Linear(12, 2),
    )


def set_up(folder: RunFolder | None = None, **recipe: Any) -> tuple[Net, Train]:
    net = Net(model(), seed=3)
    return net, Train(net, Blobs(), dataclasses.replace(RECIPE, **recipe), seed=3, folder=folder)


# -- a net of every kind --------------------
def conv_norm() -> nn.Module:
    """Convolutions with norms, dropout (random in every step), and two Linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(32, 12),
        nn.ReLU(),
        nn.Linear(12, 2),
    )


def mlp() -> nn.Module:
    """Like LeNet-300-100: Linear layers with biases, no norms."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 2)
    )


class Residual(nn.Module):
    """Like a ResNet: a strided block with a projection shortcut, then a block with an identity
    shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv1, self.norm1 = (
            nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
        )
        self.shortcut = nn.Conv2d(4, 8, 1, stride=2, bias=False)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu()
        x = (self.norm1(self.conv1(x)) + self.shortcut(x)).relu()
        x = (self.norm2(self.conv2(x)) + x).relu()
        return self.fc(x.mean((2, 3)))


def grouped() -> nn.Module:
    """Like MobileNet: a depthwise and a grouped pointwise convolution."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 1, groups=2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 2),
    )


class Attention(nn.Module):
    """Like a vision transformer: the rows of an image as tokens and a class token, position
    embeddings, attention, an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(5, 8))
        self.norm1, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.embed(x[:, 0])
        rows = torch.cat([self.token.expand(len(x), -1, -1), rows], 1) + self.positions
        normed = self.norm1(rows)
        rows = rows + self.attention(normed, normed, normed, need_weights=False)[0]
        rows = rows + self.fc2(self.fc1(self.norm2(rows)).relu())
        return self.head(rows[:, 0])


class Tied(nn.Module):
    """A weight shared by two layers, one of which has two names."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 2)
        self.fc2.weight, self.again = self.fc1.weight, self.fc2

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc2(self.fc1(x.flatten(1)).relu()).relu()
        return self.fc3(self.again(x).relu())


def partly_frozen() -> nn.Module:
    """conv_norm with its first convolution and the scale of its first norm frozen by the
    builder."""
    model = conv_norm()
    for name in ("0.weight", "0.bias", "1.weight"):
        model.get_parameter(name).requires_grad_(False)
    return model


NETS: dict[str, Callable[[], nn.Module]] = {
    "conv_norm": conv_norm,
    "mlp": mlp,
    "residual": Residual,
    "grouped": grouped,
    "attention": Attention,
    "tied": Tied,
    "partly_frozen": partly_frozen,
}


def other_coverings(model: nn.Module) -> dict[str, list[str]]:
    """Other choices of covered parameters, as regular expressions for a net's include."""
    shapes = {name: parameter.dim() for name, parameter in model.named_parameters()}
    vectors = [name for name, dim in shapes.items() if dim == 1]
    last = [name for name, dim in shapes.items() if dim > 1][-1]
    chosen = {
        "all parameters are": list(shapes),
        "only biases and norms are": vectors,
        "only the last layer is": [last],
    }
    return {what: [f"^{re.escape(name)}$" for name in names] for what, names in chosen.items()}
