"""Sums that a GPU adds up in another order in every run, so that two runs differ in bits.

`torch.use_deterministic_algorithms` lists the operations. They are found on a CPU: it executes the
same ones, except for attention, whose fused kernel has another name there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dimred.net.eager import DispatchMode
from dimred.training.make_step import choose_kernels

aten = torch.ops.aten
UNORDERED = {
    *(aten.cumsum, aten.cumsum_, aten.bincount, aten.histc, aten.nll_loss2d_forward),
    *(aten._adaptive_avg_pool2d_backward, aten.adaptive_max_pool2d_backward),
    *(aten.avg_pool3d_backward, aten.max_pool3d_with_indices_backward),
    *(aten.reflection_pad1d_backward, aten.reflection_pad2d_backward),
    *(aten.replication_pad1d_backward, aten.replication_pad2d_backward),
    *(aten.upsample_linear1d_backward, aten.upsample_bilinear2d_backward),
    *(aten.upsample_bicubic2d_backward, aten.grid_sampler_2d_backward),
    aten._scaled_dot_product_flash_attention_for_cpu_backward,
}
#: sums of entries at given places: in any order where several have the same place.
#: `index_put_` is none of these, as it sorts the places
PLACED = {aten.index_add, aten.index_add_, aten.scatter_add, aten.scatter_add_}


class UnorderedSums(DispatchMode):
    """Finds those of floating-point numbers.

    found: names of operations, with the device on which they are computed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found = set[tuple[str, str]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        unordered = packet in UNORDERED or (packet in PLACED and collides(args[2], args[1]))
        if unordered and args[0].is_floating_point():
            self.found.add((str(packet), args[0].device.type))
        return func(*args, **(kwargs or {}))


def collides(places: Tensor, dim: int) -> bool:
    """Whether two entries along a dimension have the same place."""
    dim = dim if places.dim() > 1 else 0
    ordered = places.sort(dim).values
    return bool((ordered.diff(dim=dim) == 0).any())


@contextmanager
def deterministic_kernels() -> Iterator[None]:
    """Compute by the kernels that a run on a GPU chooses."""
    choose_kernels(deterministic=True)
    try:
        yield
    finally:
        choose_kernels(deterministic=False)  # PyTorch's defaults
