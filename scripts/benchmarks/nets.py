"""The models of the benchmarks, and a training step of plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimred.models import lenet5, lenet300, resnet, vgg

INITS = {"init": "kaiming_normal", "pretrained": None}
MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
Batch = tuple[Tensor, Tensor]


class Model(NamedTuple):
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of an image

    def batch(self, size: int) -> Batch:
        return torch.randn(size, *self.shape), torch.randint(10, (size,))


def mlp() -> nn.Module:
    linear = nn.Linear
    layers = [linear(784, 2048), nn.ReLU(), linear(2048, 2048), nn.ReLU(), linear(2048, 10)]
    return nn.Sequential(nn.Flatten(), *layers)


def resnet20() -> nn.Module:
    return resnet(shape=CIFAR, classes=10, depth=20, width=1, shortcut="conv", **INITS)


MODELS = {
    "LeNet-300-100": Model(lambda: lenet300(shape=MNIST, classes=10, **INITS), MNIST),
    "MLP-2048": Model(mlp, MNIST),
    "LeNet-5": Model(lambda: lenet5(shape=MNIST, classes=10, relu=True, **INITS), MNIST),
    "ResNet-20": Model(resnet20, CIFAR),
    "VGG-16": Model(lambda: vgg(shape=CIFAR, classes=10, depth=16, **INITS), CIFAR),
}


def covered(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def sgd(parameters: Iterable[Tensor]) -> torch.optim.SGD:
    # A learning rate near zero: in a net that memorises the batch, max-pooling becomes up to twice
    # as fast (branches are predicted better), in dense nets sooner than in sparse ones. That would
    # distort the comparison.
    return torch.optim.SGD(parameters, lr=1e-9, momentum=0.9)


def training(
    model: Callable[[Tensor], Tensor], optimizer: torch.optim.SGD, batch: Batch
) -> Callable[[], None]:
    """Forward, backward, SGD with momentum."""

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(batch[0]), batch[1]).backward()
        optimizer.step()

    return step


def state_size(parameters: Iterable[Tensor], optimizer: torch.optim.SGD) -> int:
    """Bytes of parameters, gradients and momentum."""
    tensors = list[Tensor | None]()
    for parameter in parameters:
        tensors += [parameter, parameter.grad, optimizer.state[parameter].get("momentum_buffer")]
    return size(*tensors)


def size(*tensors: Tensor | None) -> int:
    return sum(each.numel() * each.element_size() for each in tensors if each is not None)
