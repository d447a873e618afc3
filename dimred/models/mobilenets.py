"""MobileNet: depthwise-separable convolutions. Howard et al., 2017 (arXiv:1704.04861)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from dimred.models.common import prepare, require_size, scaled

# (output channels, stride) of the thirteen blocks
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
)


def mobilenet(
    *,
    shape: Sequence[int],
    classes: int,
    width: int | float,
    stem_stride: int,
    init: str,
    pretrained: str | None,
) -> nn.Module:
    """MobileNet v1. `stem_stride` is 2 in the paper (ImageNet) and 1 for images as small as
    CIFAR's."""
    # Three of the four strides of 2 reduce 8 pixels to 1; the fourth then acts on a single pixel.
    require_size("mobilenet", shape, 8 * stem_stride)
    channels = scaled(32, width)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(shape[0], channels, 3, stem_stride, padding=1, bias=False),
        bn=nn.BatchNorm2d(channels),
        relu=nn.ReLU(),
    )
    for block, (out, stride) in enumerate(BLOCKS, start=1):
        layers[f"block{block}"] = _block(channels, scaled(out, width), stride)
        channels = scaled(out, width)
    layers.update(
        mean=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, classes)
    )
    return prepare(nn.Sequential(layers), init, pretrained)


def _block(channels: int, out: int, stride: int) -> nn.Module:
    """A depthwise 3x3 convolution, then a pointwise (1x1) convolution across channels."""
    return nn.Sequential(
        OrderedDict(
            depthwise=nn.Conv2d(
                channels, channels, 3, stride, padding=1, groups=channels, bias=False
            ),
            bn1=nn.BatchNorm2d(channels),
            relu1=nn.ReLU(),
            pointwise=nn.Conv2d(channels, out, 1, bias=False),
            bn2=nn.BatchNorm2d(out),
            relu2=nn.ReLU(),
        )
    )
