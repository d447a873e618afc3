"""Whether a training step may be captured in a CUDA graph, found by recording two steps.

A graph repeats what was captured: the same operations, with the same plain numbers, on the same
storages. So a step may be captured if two steps with the same coordinates execute exactly that.
Tensors that a step makes are numbered in the order of their making; all others are named by where
they lie. The proof needs no GPU, and it finds Python numbers that a graph would freeze: those that
a method changes from step to step. It does not find one that changes later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from dimred.net.eager import DispatchMode
from dimred.net.seeded import generators

aten = torch.ops.aten
#: operations whose result the host waits for: a graph cannot hold them
WAITING = {
    aten._local_scalar_dense: "reads a number back from the device",
    aten.nonzero: "makes a tensor whose size depends on its values",
    aten.masked_select: "makes a tensor whose size depends on its values",
    aten._unique2: "makes a tensor whose size depends on its values",
    aten.unique_dim: "makes a tensor whose size depends on its values",
}
#: operations that put a Python number into a tensor
LIFTING = {aten.lift_fresh, aten.lift_fresh_copy, aten.lift}
INDEXING = {aten.index, aten.index_put, aten.index_put_}


@dataclass
class Tape:
    """What a step executed: a line for each operation.

    offence: why no graph can hold it, if so.
    alive: the tensors it made. As long as they are kept, no later one lies where they do.
    """

    lines: list[tuple[str, ...]] = field(default_factory=list)
    offence: str = ""
    alive: list[Tensor] = field(default_factory=list)

    def difference(self, other: Tape) -> str:
        """Why this step and the next cannot be the same graph; empty if they can."""
        if self.offence or other.offence:
            return self.offence or other.offence
        for one, two in zip(self.lines, other.lines, strict=False):
            if one != two:
                changed = [pair for pair in zip(one, two, strict=False) if pair[0] != pair[1]]
                before, after = changed[0] if changed else (one[-1], two[-1])
                return f"{one[0]} has {before} in one step and {after} in the next"
        if len(self.lines) != len(other.lines):
            return f"one step has {len(self.lines)} operations, the next {len(other.lines)}"
        return ""


class Recorder(DispatchMode):
    """Records the operations that are executed within it."""

    def __init__(self) -> None:
        super().__init__()
        self.tape = Tape()
        self._names: dict[int, str] = {}

    def __enter__(self) -> Recorder:
        self._generators = generators()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if generators() != self._generators:
            self._object_to("the step draws random numbers of Python's or numpy's")

    def _object_to(self, why: str) -> None:
        """Keep the first offence."""
        self.tape.offence = self.tape.offence or why

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tree_leaves((args, kwargs))
        line = (str(func), *(self._name(each) for each in given))
        self._examine(func, given)
        out = func(*args, **kwargs)
        known = {storage_of(each) for each in tensors(given)}
        for each in tensors(tree_leaves(out)):
            key = storage_of(each)
            if key not in known and key not in self._names:
                self._names[key] = f"#{len(self.tape.lines)}"
                self.tape.alive.append(each)
        self.tape.lines.append(line)
        return out

    def _name(self, value: Any) -> str:
        if not isinstance(value, Tensor):
            return repr(value)
        place = self._names.get(storage_of(value), hex(value.untyped_storage().data_ptr()))
        return f"{place}+{value.storage_offset()} {tuple(value.shape)} {value.stride()}"

    def _examine(self, func: Any, given: list[Any]) -> None:
        """Whether a graph can hold this operation."""
        packet, why = func.overloadpacket, ""
        devices = {each.device.type for each in tensors(given) if each.dim()}
        if packet in WAITING:
            why = WAITING[packet]
        elif packet in LIFTING:
            why = "puts a number of Python into a tensor"
        elif len(devices) > 1:
            why = "copies between the host and the device"
        elif any(isinstance(each, torch.Generator) for each in given):
            why = "draws from a random generator of its own"
        elif packet in INDEXING and any(is_mask(each) for each in tensors(given[1:])):
            why = "selects by a mask, so sizes depend on values"
        if why:
            self._object_to(f"{packet} {why}")


def tensors(values: Iterable[Any]) -> list[Tensor]:
    return [each for each in values if isinstance(each, Tensor)]


def is_mask(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.bool, torch.uint8) and tensor.dim() > 0


def storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
