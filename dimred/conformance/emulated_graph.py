"""CUDA graphs, emulated on a CPU: so a test can prove that captured steps end with the same bits.

As a CUDA graph does, the emulation repeats the operations that were captured, with the same plain
numbers, on the same storages. Python is not run again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from dimred.net.eager import DispatchMode


class EmulatedGraph(DispatchMode):
    """What `work` executes. The first replay is the capture itself, which on a CPU cannot do
    without executing."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, list[Any]]] = []
        self._executed = True
        with self:
            work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        # a graph holds storages, not Python's tensors, whose storage may be replaced
        given, made = tree_map_only(Tensor, Tensor.detach, ((args, kwargs), out))
        self._calls.append((func, *given, tree_leaves(made)))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        if self._executed:
            self._executed = False
            return
        for func, args, kwargs, kept in self._calls:
            given = {storage_of(each) for each in tree_leaves((args, kwargs)) if is_tensor(each)}
            again = tree_leaves(func(*args, **kwargs))
            for old, new in zip(kept, again, strict=True):
                # views, and what is changed in place, lie where they lay
                if is_tensor(old) and storage_of(old) not in given and old.numel():
                    old.copy_(new)


def is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
