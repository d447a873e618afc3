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
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from dimred.net.eager import DispatchMode
from dimred.net.seeded import generators
from dimred.training.deterministic import is_unordered

aten = torch.ops.aten
#: tags of operations whose result the host waits for: a graph cannot hold them
WAITING = {
    torch.Tag.data_dependent_output: "reads a number back from the device",
    torch.Tag.dynamic_output_shape: "makes a tensor whose size depends on its values",
}
#: an operation without such a tag that waits, too
CHECKING = {aten._linalg_check_errors}
#: operations that put a Python number into a tensor
LIFTING = {aten.lift_fresh, aten.lift_fresh_copy, aten.lift}
#: operations whose sizes depend on values only if they select by a mask
INDEXING = {aten.index, aten.index_put, aten.index_put_}
COPYING = {aten._to_copy, aten.copy, aten.copy_}


@dataclass
class Tape:
    """What a step executed: a line for each operation.

    offence: why no graph can hold it, if so.
    unordered: sums that a GPU adds up in another order in every run.
    made: the storages of the tensors it made. As long as they are referred to, no other one has the
        identity of theirs; their memory may be freed.
    """

    lines: list[tuple[str, ...]] = field(default_factory=list)
    offence: str = ""
    unordered: set[str] = field(default_factory=set)
    made: list[StorageWeakRef] = field(default_factory=list)

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
        on_device = any(not is_on_host(each) for each in tensors(given))
        line = (str(func), *(self._name(each, on_device) for each in given))
        if is_unordered(func, args):
            self.tape.unordered.add(str(func.overloadpacket))
        out = func(*args, **kwargs)
        made = tensors(tree_leaves(out))
        self._examine(func, given, made)
        known = {storage_of(each) for each in tensors(given)}
        for each in made:
            key = storage_of(each)
            if key not in known and key not in self._names:
                self._names[key] = f"#{len(self.tape.lines)}"
                self.tape.made.append(StorageWeakRef(each.untyped_storage()))
        self.tape.lines.append(line)
        return out

    def _name(self, value: Any, on_device: bool) -> str:
        if not isinstance(value, Tensor):
            return repr(value)
        # a kernel is given its value, which a graph would freeze
        if on_device and is_on_host(value) and not value.dim():
            return repr(value.tolist())
        place = self._names.get(storage_of(value), hex(value.untyped_storage().data_ptr()))
        return f"{place}+{value.storage_offset()} {tuple(value.shape)} {value.stride()}"

    def _examine(self, func: Any, given: list[Any], made: list[Tensor]) -> None:
        """Whether a graph can hold this operation."""
        packet = func.overloadpacket
        why = next((WAITING[tag] for tag in func.tags if tag in WAITING), "")
        copied = [each for each in tensors(given) if each.dim() or packet in COPYING]
        if packet in INDEXING:
            masks = any(is_mask(each) for each in tensors(given[1:]))
            why = "selects by a mask, so sizes depend on values" if masks else ""
        elif packet in CHECKING:
            why = "reads back whether it has succeeded"
        elif packet in LIFTING:
            why = "puts a number of Python into a tensor"
        elif any(isinstance(each, torch.Generator) for each in given):
            why = "draws from a random generator of its own"
        if len({each.device.type for each in (*copied, *made)} - {"meta"}) > 1:
            why = why or "copies between the host and the device"
        if why:
            self._object_to(f"{packet} {why}")


def tensors(values: Iterable[Any]) -> list[Tensor]:
    return [each for each in values if isinstance(each, Tensor)]


def is_mask(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.bool, torch.uint8) and tensor.dim() > 0


def is_on_host(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
