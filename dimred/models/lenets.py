"""LeNets and other small networks for MNIST. LeCun et al., Proc. IEEE 1998."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from dimred.errors import require
from dimred.models.common import prepare, require_size


def lenet300(*, shape: Sequence[int], classes: int, init: str, pretrained: str | None) -> nn.Module:
    """LeNet-300-100: pixels - 300 - 100 - classes, as in Han et al., NeurIPS 2015
    (arXiv:1506.02626)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        flatten=nn.Flatten(),
        fc1=nn.Linear(math.prod(shape), 300),
        relu1=nn.ReLU(),
        fc2=nn.Linear(300, 100),
        relu2=nn.ReLU(),
        fc3=nn.Linear(100, classes),
    )
    return prepare(nn.Sequential(layers), init, pretrained)


def mlp(
    *, shape: Sequence[int], classes: int, hidden: Sequence[int], init: str, pretrained: str | None
) -> nn.Module:
    """Linear layers with ReLU between them: pixels - hidden widths - classes."""
    require(
        all(width > 0 for width in hidden),
        "model.hidden",
        hidden,
        "a list of widths, each 1 or more",
    )
    widths = [math.prod(shape), *hidden]
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for i, (ins, outs) in enumerate(itertools.pairwise(widths), 1):
        layers |= {f"fc{i}": nn.Linear(ins, outs), f"relu{i}": nn.ReLU()}
    layers[f"fc{len(widths)}"] = nn.Linear(widths[-1], classes)
    return prepare(nn.Sequential(layers), init, pretrained)


def lenet(*, shape: Sequence[int], classes: int, init: str, pretrained: str | None) -> nn.Module:
    """LeNet-5 with max-pooling and ReLU: two 5x5 convolutions of 6 and 16 channels without padding,
    120 - 84 - classes.

    As in Li et al., ICLR 2018 (arXiv:1804.08838): 44,426 parameters on MNIST, 62,006 on CIFAR-10.
    """
    require_size("lenet", shape, 16)
    channels, height, width = shape
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(channels, 6, 5),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(6, 16, 5),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(16 * _pooled(height) * _pooled(width), 120),
        relu3=nn.ReLU(),
        fc2=nn.Linear(120, 84),
        relu4=nn.ReLU(),
        fc3=nn.Linear(84, classes),
    )
    return prepare(nn.Sequential(layers), init, pretrained)


def lenet5(
    *, shape: Sequence[int], classes: int, relu: bool, init: str, pretrained: str | None
) -> nn.Module:
    """LeNet-5-Caffe: two 5x5 convolutions without padding, each followed by max-pooling and, with
    `relu`, by ReLU, then 500 - classes.

    The convolutions have no ReLU in Caffe's example and in the code of SNIP, Lee et al., ICLR 2019
    (arXiv:1810.02340); this network diverges at learning rate 0.1 when trained densely. They have
    it in the code of Dettmers, Zettlemoyer, 2019 (arXiv:1907.04840), and in other PyTorch code."""
    require_size("lenet5", shape, 16)
    channels, height, width = shape

    def pooled(i: int) -> dict[str, nn.Module]:
        # ReLU commutes with max-pooling; after it, it has a quarter of the values to compute.
        return {f"pool{i}": nn.MaxPool2d(2)} | ({f"rectify{i}": nn.ReLU()} if relu else {})

    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(channels, 20, 5),
        **pooled(1),
        conv2=nn.Conv2d(20, 50, 5),
        **pooled(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(50 * _pooled(height) * _pooled(width), 500),
        relu1=nn.ReLU(),
        fc2=nn.Linear(500, classes),
    )
    return prepare(nn.Sequential(layers), init, pretrained)


def _pooled(size: int) -> int:
    """The size of an image after two rounds of a 5x5 convolution and 2x2 pooling."""
    return ((size - 4) // 2 - 4) // 2
