"""Sums that a GPU adds up in another order in every run, found on a CPU.

It executes the same operations, except for attention, whose fused kernel has another name there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dimred.net.eager import DispatchMode
from dimred.training.deterministic import choose_kernels, is_unordered


class UnorderedSums(DispatchMode):
    """Finds them. found: names of operations, with the device on which they are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.found = set[tuple[str, str]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if is_unordered(func, args):
            self.found.add((str(func.overloadpacket), args[0].device.type))
        return func(*args, **(kwargs or {}))


@contextmanager
def deterministic_kernels() -> Iterator[None]:
    """Compute by the kernels that a run on a GPU chooses."""
    choose_kernels(deterministic=True)
    try:
        yield
    finally:
        choose_kernels(deterministic=False)  # PyTorch's defaults
