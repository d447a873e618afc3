"""Vision transformers for small images. Dosovitskiy et al., ICLR 2021 (arXiv:2010.11929)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimred.errors import require
from dimred.models.common import prepare, require_size


def vit(
    *,
    shape: Sequence[int],
    classes: int,
    patch: int | None,
    dim: int,
    depth: int,
    heads: int,
    mlp: int,
    init: str,
    pretrained: str | None,
) -> nn.Module:
    """A vision transformer: square patches, a class token, `depth` blocks of attention and an MLP.

    As in the paper: pre-norm, GELU, learned position embeddings; without dropout. `mlp` is the
    width of the hidden layer in multiples of `dim`. `patch` defaults to 4x4 pixels, and to 2x2 for
    images of less than 16 pixels. Pixels beyond the last whole patch are not used.
    """
    if patch is None:
        patch = 2 if min(shape[1:]) < 16 else 4
    require(patch > 0, "model.patch", patch, "1 or more pixels")
    require_heads(dim, heads)
    require_size("vit", shape, patch)
    return prepare(ViT(shape, classes, patch, dim, depth, heads, mlp), init, pretrained)


def require_heads(dim: int, heads: int) -> None:
    require(
        heads > 0 and dim > 0 and dim % heads == 0,
        "model.dim",
        dim,
        f"a multiple of model.heads, which is {heads}",
    )


class ViT(nn.Module):
    """Embeds patches as tokens of `dim` numbers; the head classifies the class token."""

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        mlp: int,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        tokens = 1 + (height // patch) * (width // patch)
        self.patches = nn.Conv2d(channels, dim, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(nn.init.normal_(torch.empty(1, tokens, dim), std=0.02))
        self.blocks = nn.Sequential(*(Block(dim, heads, mlp * dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        token = self.token.expand(len(x), -1, -1)
        tokens = torch.cat([token, patches], 1) + self.positions
        return self.head(self.norm(self.blocks(tokens)[:, 0]))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor, attended: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), attended)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v in every head; one matrix computes queries, keys and values.

    attended: which tokens have keys (N, 1, 1, tokens, bool); by default all"""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.head = dim // heads  # so that the number of heads is that of the weights

    def forward(self, x: Tensor, attended: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, self.head)).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v, attended)
        return self.out(heads.transpose(1, 2).flatten(2))
