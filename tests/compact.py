"""Nets with sparse weights, and whether a model computes the same."""

from __future__ import annotations

from typing import Any

import torch
from conftest import compose
from torch import nn

from dimred.net import Net
from dimred.runs.nets import build_net
from dimred.scores import random_scores
from dimred.select.topk import topk

DIGITS = (1, 8, 8)


Json = dict[str, Any]


def built(*overrides: str, shape: tuple[int, int, int] = DIGITS) -> tuple[Net, Json]:
    """A net, and what a file has to know of its model."""
    cfg: Any = compose(*overrides)
    return build_net(cfg, shape, 10), {
        "model": dict(cfg.model),
        "shape": list(shape),
        "classes": 10,
    }


def sparse(density: float, base: Any, *overrides: str) -> tuple[Net, Json]:
    net, about = built(*overrides)
    net.keep(topk(random_scores(net), round(density * net.total)), base=base)
    with torch.no_grad():
        for w in net.weights.values():
            w.psi.add_(0.01)
        for p in net.uncovered.values():
            p.add_(0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    net(torch.rand(8, *DIGITS))  # norms learn
    return net, about


def same(model: nn.Module, net: Net) -> bool:
    """The same logits and the same tensors, to the bit (but for the sign of zeros)."""
    net.train(False)
    images = torch.rand(5, *DIGITS)
    state = net.state_dict()
    assert model.state_dict().keys() == state.keys() and not model.training
    with torch.no_grad():
        return torch.equal(model(images), net(images)) and all(
            torch.equal(value, state[name]) for name, value in model.state_dict().items()
        )
