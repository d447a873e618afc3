"""Nets to freeze."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dimred.net import Net


def trained(net: Net) -> int:
    """How many numbers the optimiser trains."""
    return sum(p.numel() for p in net.parameters().values() if p.requires_grad)


def same(net: Net, other: Net) -> bool:
    states = net.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def residual() -> Net:
    """With shortcuts of its own, and a norm after every convolution."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.shortcut = (
                nn.Conv2d(1, 4, 3, padding=1),
                nn.BatchNorm2d(4),
                nn.Conv2d(1, 4, 1),
            )
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc((self.norm(self.conv(x)) + self.shortcut(x)).relu().mean((2, 3)))

    torch.manual_seed(0)
    return Net(Block())
