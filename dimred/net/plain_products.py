"""Attention and recurrent layers as plain products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def plain_kernels(model: nn.Module) -> Iterator[None]:
    """Compute attention and recurrent layers as matrix products and functions of single entries.

    Their fused kernels are faster, but have no second derivatives, and do not show which weights
    they multiply. All other layers keep their kernels.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    fused: list[Any] = [torch.backends.cudnn, torch.backends.mkldnn]
    backends = fused if recurrent else []
    enabled = [backend.enabled for backend in backends]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # of nn.MultiheadAttention, for evaluation
    for backend in backends:
        backend.enabled = False
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for backend, before in zip(backends, enabled, strict=True):
            backend.enabled = before
