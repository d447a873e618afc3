"""Wide residual networks. Zagoruyko & Komodakis, BMVC 2016 (arXiv:1605.07146)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dimred.models.common import prepare, require_depth, require_size, scaled
from dimred.models.resnets import conv3x3


def wide_resnet(
    *,
    shape: Sequence[int],
    classes: int,
    depth: int,
    width: int | float,
    init: str,
    pretrained: str | None,
) -> nn.Module:
    """WRN-(6n+4)-width: three stages of n pre-activation blocks behind a stem of 16 channels,
    without dropout."""
    require_depth("wide_resnet", depth, range(10, 1205, 6), "6n+4, such as 16, 22, 28 or 40")
    require_size(f"wrn{depth}", shape, 4)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv3x3(shape[0], 16))
    channels = 16
    for stage in range(3):
        out = scaled(16 * 2**stage, width)
        layers[f"stage{stage + 1}"] = nn.Sequential(
            Block(channels, out, 2 if stage else 1),
            *(Block(out, out, 1) for _ in range((depth - 4) // 6 - 1)),
        )
        channels = out
    layers.update(
        bn=nn.BatchNorm2d(channels),
        relu=nn.ReLU(),
        mean=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(channels, classes),
    )
    return prepare(nn.Sequential(layers), init, pretrained)


class Block(nn.Module):
    """x + conv(relu(bn(conv(relu(bn(x)))))). Where the shape changes, the first x is replaced by a
    1x1 convolution of relu(bn(x))."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), conv3x3(channels, out, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(out), conv3x3(out, out)
        same = stride == 1 and channels == out
        self.shortcut = None if same else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return y + (x if self.shortcut is None else self.shortcut(active))
