"""Buffers of a model, such as running statistics, which a forward pass changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def moving_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that training may change, each under its first name: those of floating point,
    such as running statistics, of modules in training mode."""
    found: dict[str, Tensor] = {}
    known = set[int]()
    for prefix, module in model.named_modules():
        if not module.training:
            continue
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and id(buffer) not in known:
                found[f"{prefix}.{name}"] = buffer
                known.add(id(buffer))
    return found


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Restore buffers at the end of the block. Those that the block creates or enlarges are caches
    and stay."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                value = before.get(name, buffer)
                # a write would look like a change
                if buffer.shape == value.shape and not torch.equal(buffer, value):
                    buffer.copy_(value)
