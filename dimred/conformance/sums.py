"""Sums in another order in every run, on a GPU or by several threads of a CPU.

They are found on a CPU by one thread. It executes the same operations as a GPU, except for
attention, whose fused kernel has another name there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from dimred.net.eager import DispatchMode
from dimred.training.deterministic import choose_kernels, is_unordered

aten = torch.ops.aten
INDEX_PUT = {aten.index_put, aten.index_put_}


class UnorderedSums(DispatchMode):
    """Finds them. found: names of operations, with the device on which they are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.found = set[tuple[str, str]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if is_unordered(func, args) or is_atomic(func, args):
            self.found.add((str(func.overloadpacket), args[0].device.type))
        return func(*args, **(kwargs or {}))


def is_atomic(func: Any, args: Sequence[Any]) -> bool:
    """Whether the threads of a CPU add up in the order in which they finish: `index_put_` does so
    in float32, of several entries at the same place. Gradients of `tensor[index]` are computed by
    it."""
    if func.overloadpacket not in INDEX_PUT or len(args) < 4 or not args[3]:
        return False
    if args[0].dtype != torch.float32:
        return False
    # a mask selects every place once, None is a whole dimension
    numbers = [each for each in args[1] if each is not None and each.dtype != torch.bool]
    if not numbers:
        return False
    places = torch.stack(torch.broadcast_tensors(*numbers)).flatten(1)
    return places.unique(dim=1).shape != places.shape


@contextmanager
def deterministic_kernels() -> Iterator[None]:
    """Compute by the kernels that a run on a GPU chooses."""
    choose_kernels(deterministic=True)
    try:
        yield
    finally:
        choose_kernels(deterministic=False)  # PyTorch's defaults
