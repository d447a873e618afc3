"""Models whose weights are not those of Conv and Linear layers alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHAPE = (1, 4, 6)  # images; their rows are a sequence of four


class Attention(nn.Module):
    """Self-attention between rows, with a class token and position embeddings."""

    def __init__(self, **more: int) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.position = nn.Parameter(torch.randn(5, 8))
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **more)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.embed(x[:, 0])
        rows = torch.cat([self.token.expand(len(x), -1, -1), rows], 1) + self.position
        h = self.norm(rows)
        other = rows[..., : self.attention.kdim]
        return self.head((rows + self.attention(h, other, other)[0])[:, 0])


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **more: bool) -> None:
        super().__init__()
        self.rnn, self.head = kind(6, 5, batch_first=True, **more), nn.LazyLinear(2)
        self(torch.zeros(1, *SHAPE))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x[:, 0])[0][:, -1])


class Functional(nn.Module):
    """Matrices of its own, a layer's weight used from outside, an embedding and a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.experts = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(3, 6, 5))
        self.layer, self.bias = nn.Linear(5, 2), nn.Parameter(torch.randn(4, 6))
        self.scale, self.table = nn.Parameter(torch.ones(1, 4, 6)), nn.Embedding(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.einsum("bnc,nm->bmc", x[:, 0] * self.scale, self.mix) + self.bias
        rows = rows + self.table(torch.arange(4, device=x.device))
        rows = torch.einsum("bnc,ecd->bned", rows, self.experts).relu()
        return F.linear(rows.mean((1, 2)), self.layer.weight)
