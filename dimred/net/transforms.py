"""What maps E are made of: parts that more than one method needs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dimred.net.coordinates import Support


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The value of `hard`, to the bit, with the gradient of `soft`."""
    return hard.detach() + (soft - soft.detach())


class Masked(nn.Module):
    """theta at `kept`, and zero elsewhere, where it feels no gradient either. The mask is saved
    with the net."""

    kept: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", torch.ones_like(weight, dtype=torch.bool, requires_grad=False))

    @torch.no_grad()
    def keep(self, support: Support) -> None:
        self.kept.zero_().view(-1)[slice(None) if support is None else support] = True

    def forward(self, theta: Tensor) -> Tensor:
        return theta * self.kept


class Feedback(Masked):
    """theta at `kept`, and zero elsewhere, while all of theta feels the gradient taken there."""

    def forward(self, theta: Tensor) -> Tensor:
        return straight_through(theta * self.kept, theta)


class Gated(Masked):
    """theta at `kept`, and zero elsewhere; a score of every weight feels dL/dE * theta, as if it
    were the mask."""

    numbers = "scores"

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self.score = nn.Parameter(torch.zeros_like(weight, requires_grad=False))

    def forward(self, theta: Tensor) -> Tensor:
        return theta * straight_through(self.kept.to(theta.dtype), self.score)
