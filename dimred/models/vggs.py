"""Stacks of 3x3 convolutions: VGG for CIFAR, and the Conv-2/4/6/8 networks of the lottery ticket
papers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from dimred.models.common import prepare, require_depth, require_size

# depth: number of convolutions in each block; 2x2 max-pooling between blocks
VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
VGG_CHANNELS = (64, 128, 256, 512, 512)


def vgg(
    *, shape: Sequence[int], classes: int, depth: int, init: str, pretrained: str | None
) -> nn.Module:
    """VGG with BatchNorm and one linear layer, as used on CIFAR. Simonyan & Zisserman, ICLR 2015
    (arXiv:1409.1556)."""
    require_depth("vgg", depth, VGG, "11, 13, 16 or 19")
    require_size(f"vgg{depth}", shape, 16)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = shape[0]
    for block, (convs, out) in enumerate(zip(VGG[depth], VGG_CHANNELS, strict=True), start=1):
        if block > 1:
            layers[f"pool{block - 1}"] = nn.MaxPool2d(2)
        for k in range(1, convs + 1):
            # without bias, since BatchNorm has one
            layers[f"conv{block}_{k}"] = nn.Conv2d(channels, out, 3, padding=1, bias=False)
            layers[f"bn{block}_{k}"] = nn.BatchNorm2d(out)
            layers[f"relu{block}_{k}"] = nn.ReLU()
            channels = out
    layers.update(
        mean=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, classes)
    )
    return prepare(nn.Sequential(layers), init, pretrained)


def convnet(
    *, shape: Sequence[int], classes: int, depth: int, init: str, pretrained: str | None
) -> nn.Module:
    """Conv-2, Conv-4, Conv-6 and Conv-8: pairs of convolutions, each followed by max-pooling, then
    256 - 256 - classes.

    Frankle & Carbin, ICLR 2019 (arXiv:1803.03635); Conv-8: Ramanujan et al., CVPR 2020
    (arXiv:1911.13299)."""
    require_depth("convnet", depth, (2, 4, 6, 8), "2, 4, 6 or 8")
    pools = depth // 2
    require_size(f"conv{depth}", shape, 2**pools)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, height, width = shape
    for block in range(1, pools + 1):
        out = 32 * 2**block
        layers[f"conv{2 * block - 1}"], layers[f"relu{2 * block - 1}"] = (
            _conv(channels, out),
            nn.ReLU(),
        )
        layers[f"conv{2 * block}"], layers[f"relu{2 * block}"] = _conv(out, out), nn.ReLU()
        layers[f"pool{block}"] = nn.MaxPool2d(2)
        channels = out
    pixels = (height >> pools) * (width >> pools)
    layers.update(
        flatten=nn.Flatten(),
        fc1=nn.Linear(channels * pixels, 256),
        fc1_relu=nn.ReLU(),
        fc2=nn.Linear(256, 256),
        fc2_relu=nn.ReLU(),
        fc3=nn.Linear(256, classes),
    )
    return prepare(nn.Sequential(layers), init, pretrained)


def _conv(channels: int, out: int) -> nn.Module:
    return nn.Conv2d(channels, out, 3, padding=1)
