"""CUDA graphs, emulated on a CPU: so a test can prove that captured steps end with the same bits.

As a CUDA graph does, the emulation repeats the operations that were captured, with the same plain
numbers, on the same storages. Python is not run again. Nor does a graph keep the memory that it has
not made itself: here it is an error if that has been freed, on a GPU it would be another tensor's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves, tree_map_only

from dimred.net.eager import DispatchMode


@dataclass(frozen=True, eq=False)
class Outside:
    """Where a tensor lies that the graph uses and has not made."""

    storage: StorageWeakRef
    empty: Tensor  # of the same type
    offset: int
    size: torch.Size
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)
        assert storage is not None, "a captured step uses memory that was freed after its capture"
        return self.empty.detach().set_(storage, self.offset, self.size, self.stride)


class EmulatedGraph(DispatchMode):
    """What `work` executes. The first replay is the capture itself, which on a CPU cannot do
    without executing."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, list[Any]]] = []
        self._made = set[int]()  # storages
        self._executed = True
        with self:
            work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = {storage_of(each) for each in tree_leaves((args, kwargs)) if is_tensor(each)}
        held = tree_map_only(Tensor, self._held, (args, kwargs))
        out = func(*args, **kwargs)
        kept = []
        for each in tree_leaves(out):
            # views, and what is changed in place, stay where they were
            if is_tensor(each) and storage_of(each) not in given and each.numel():
                kept.append(each.detach())
                self._made.add(storage_of(each))
            else:
                kept.append(None)
        self._calls.append((func, *held, kept))
        return out

    def _held(self, tensor: Tensor) -> Tensor | Outside:
        # a graph holds storages, not Python's tensors, whose storage may be replaced
        tensor = tensor.detach()
        if storage_of(tensor) in self._made or tensor.is_meta or not tensor.numel():
            return tensor
        storage = StorageWeakRef(tensor.untyped_storage())
        offset = int(tensor.storage_offset())
        return Outside(storage, tensor.new_empty(0), offset, tensor.shape, tensor.stride())

    @torch.no_grad()
    def replay(self) -> None:
        if self._executed:
            self._executed = False
            return
        for func, args, kwargs, kept in self._calls:
            args, kwargs = tree_map_only(Outside, Outside.tensor, (args, kwargs))
            again = tree_leaves(func(*args, **kwargs))
            for old, new in zip(kept, again, strict=True):
                if old is not None:
                    old.copy_(new)


def is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
