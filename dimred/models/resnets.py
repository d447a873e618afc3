"""Residual networks for small images. He et al., CVPR 2016 (arXiv:1512.03385)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dimred.errors import UserError, nearest
from dimred.models.common import prepare, require_depth, require_size, scaled


def resnet(
    *,
    shape: Sequence[int],
    classes: int,
    depth: int,
    width: int | float,
    shortcut: str,
    init: str,
    pretrained: str | None,
) -> nn.Module:
    """ResNet-(6n+2) for CIFAR, with three stages of n blocks. `width=2` gives the networks of the
    GraSP paper."""
    require_depth("resnet", depth, range(8, 1203, 6), "6n+2, such as 20, 32, 44, 56 or 110")
    require_size(f"resnet{depth}", shape, 4)
    channels = [scaled(16 * 2**stage, width) for stage in range(3)]
    return prepare(
        ResNet(shape[0], classes, channels, (depth - 2) // 6, shortcut), init, pretrained
    )


def resnet18(
    *,
    shape: Sequence[int],
    classes: int,
    width: int | float,
    shortcut: str,
    init: str,
    pretrained: str | None,
) -> nn.Module:
    """ResNet-18 with a 3x3 stem of stride 1 and no max-pooling, as used on CIFAR and Tiny
    ImageNet."""
    require_size("resnet18", shape, 8)
    channels = [scaled(64 * 2**stage, width) for stage in range(4)]
    return prepare(ResNet(shape[0], classes, channels, 2, shortcut), init, pretrained)


class ResNet(nn.Sequential):
    """A 3x3 stem, stages of `blocks` basic blocks, global average pooling and a Linear layer. Every
    stage but the first halves the image."""

    def __init__(
        self, images: int, classes: int, channels: Sequence[int], blocks: int, shortcut: str
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=conv3x3(images, channels[0]), bn=nn.BatchNorm2d(channels[0]), relu=nn.ReLU()
        )
        for stage, out in enumerate(channels):
            before = channels[max(stage - 1, 0)]
            layers[f"stage{stage + 1}"] = nn.Sequential(
                Block(before, out, 2 if stage else 1, shortcut),
                *(Block(out, out, 1, shortcut) for _ in range(blocks - 1)),
            )
        layers.update(
            mean=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels[-1], classes)
        )
        super().__init__(layers)


class Block(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x))))))."""

    def __init__(self, channels: int, out: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(channels, out, stride), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = conv3x3(out, out), nn.BatchNorm2d(out)
        self.shortcut = _shortcut(shortcut, channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Pad(nn.Module):
    """The shortcut without weights (option A of the paper): subsample the pixels by the stride and
    append channels of zeros."""

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))


def conv3x3(channels: int, out: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias, since BatchNorm follows it and has one."""
    return nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)


def _shortcut(kind: str, channels: int, out: int, stride: int) -> nn.Module:
    """The shortcut of a block: `conv` is option B of the paper (1x1 convolution), `pad` option A;
    the identity where the shape does not change."""
    if kind not in ("conv", "pad"):
        raise UserError(f"Unknown model.shortcut={kind!r}. {nearest(str(kind), ['conv', 'pad'])}")
    if stride == 1 and channels == out:
        return nn.Identity()
    if kind == "pad":
        return Pad(out - channels, stride)
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(channels, out, 1, stride, bias=False), bn=nn.BatchNorm2d(out))
    )
