"""Transformers that classify token sequences. Vaswani et al., NeurIPS 2017 (arXiv:1706.03762)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimred.errors import UserError, require
from dimred.models.common import prepare
from dimred.models.vits import Block, require_heads


def text_transformer(
    *,
    shape: Sequence[int],
    classes: int,
    vocabulary: int,
    dim: int,
    depth: int,
    heads: int,
    mlp: int,
    init: str,
    pretrained: str | None,
) -> nn.Module:
    """A transformer encoder over token sequences of one length, whose class token is classified.

    Pre-norm, GELU, learned positions, without dropout, as `vit`. The blocks are those of `vit`."""
    if len(shape) != 1:
        size = "x".join(map(str, shape))
        raise UserError(
            f"text_transformer classifies token sequences, got images of {size}. Choose "
            "dataset=brackets or dataset=text, or model=vit for images"
        )
    require(vocabulary > 0, "model.vocabulary", vocabulary, "1 or more")
    require_heads(dim, heads)
    model = TextTransformer(shape[0], classes, vocabulary, dim, depth, heads, mlp)
    return prepare(model, init, pretrained)


class TextTransformer(nn.Module):
    """Tokens (N, length) of any number type to logits. Token 0 marks the end of shorter rows and
    is not attended to."""

    def __init__(
        self,
        length: int,
        classes: int,
        vocabulary: int,
        dim: int,
        depth: int,
        heads: int,
        mlp: int,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, dim)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(nn.init.normal_(torch.empty(1, 1 + length, dim), std=0.02))
        self.blocks = nn.ModuleList(Block(dim, heads, mlp * dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        attended = F.pad(x != 0, (1, 0), value=True)[:, None, None]  # the class token, too
        token = self.token.expand(len(x), -1, -1)
        x = torch.cat([token, self.tokens(x.long())], 1) + self.positions
        for block in self.blocks:
            x = block(x, attended)
        return self.head(self.norm(x[:, 0]))
