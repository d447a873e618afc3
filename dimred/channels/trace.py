"""What is known of the channels of tensors while a model is traced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from dimred.channels.identities import FIXED, STAYS, Along, DisjointSet


class Trace:
    """The identities of channels: numbers of a `DisjointSet`, in which coupled channels are in one
    set.

    rows, columns: for parameters and buffers, the channel of each index of dimension 0 and 1.
    filters, scales: the names of filters, and of scales of norms, in the order of computation.
    function: the one that runs.
    """

    def __init__(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """tensors: parameters and buffers, with their names."""
        self.identities = DisjointSet(1)  # channels in the set of 0 cannot be removed
        self.rows, self.columns = dict[str, Tensor](), dict[str, Tensor]()
        self.filters, self.scales = list[str](), list[str]()
        self.function: Any = None
        self._names = {id(tensor): name for name, tensor in tensors}
        self._channels = dict[int, Along]()  # of computed tensors, by id
        # a reference to each tensor, because Python reuses the ids of deleted objects
        self._held = list[object]()

    def numbers(self) -> tuple[Tensor, int]:
        """For every identity, the number of its channel, or STAYS; and the number of channels."""
        roots = self.identities.roots()
        made = torch.cat([roots[:1], *(roots[self.rows[name]] for name in self.filters)]).unique()
        numbers = torch.full_like(roots, STAYS)
        numbers[made[1:]] = torch.arange(len(made) - 1)  # made[0] is 0, which stays
        return numbers[roots], len(made) - 1

    # -- computed tensors --------------------
    def follow(self, tensor: Tensor, channels: Along) -> None:
        self._held.append(tensor)
        self._channels[id(tensor)] = channels

    def of(self, tensor: Tensor) -> Along | None:
        """The channels of a computed tensor, if they are followed."""
        return self._channels.get(id(tensor))

    def removable(self, tensor: Tensor) -> Along | None:
        """The same, if some of them may be removable."""
        known = self.of(tensor)
        return None if known is FIXED else known

    def along(self, tensor: Tensor, axis: int) -> Tensor | None:
        """The identities along a dimension (axis < 0 counts from the end); None if they cannot be
        followed, or if those of another dimension are."""
        known = self.of(tensor)
        if known is None or axis >= tensor.dim():
            return None
        if known is FIXED:
            return torch.zeros(tensor.shape[axis], dtype=torch.int64)
        return known.ids if known.axis == axis % tensor.dim() else None

    def stay(self, ids: Tensor | None) -> None:
        """Mark channels as not removable."""
        if ids is not None:
            self.identities.join(ids, torch.zeros_like(ids))

    # -- parameters and buffers --------------------
    def name(self, tensor: Tensor) -> str | None:
        """The name of a parameter or buffer; None for a computed tensor."""
        return self._names.get(id(tensor))

    def note(self, names: list[str], tensor: Tensor | None) -> None:
        """Append the name of a parameter to a list, once."""
        name = None if tensor is None else self.name(tensor)
        if name and name not in names:
            names.append(name)

    def product(
        self, axis: int, ids: Tensor | None, weight: Tensor, bias: Tensor | None, groups: int = 1
    ) -> Along | None:
        """The channels that filters create from the channels `ids`."""
        name = self.name(weight)
        if name is None or ids is None:
            return None
        outputs, inputs = weight.shape[:2]
        if groups == 1 or inputs > 1:
            self.identities.join(ids, ids[:inputs].repeat(groups))
            self._assign(self.columns, name, ids[:inputs])
            rows = self.rows.get(name)
            if rows is None:
                rows = self.identities.new(outputs // groups).repeat(groups)
        else:
            rows = ids.repeat_interleave(outputs // groups)
        self.note(self.filters, weight)
        return self.each(axis, rows, weight, bias)

    def each(self, axis: int, ids: Tensor | None, *tensors: Tensor | None) -> Along | None:
        """Record that the entries (or rows) of these tensors belong to the channels `ids`."""
        if ids is None:
            return None
        for tensor in tensors:
            if tensor is None:
                continue
            name = self.name(tensor)
            if name is None:  # a computed tensor, not a parameter
                self.stay(ids)
            else:
                self._assign(self.rows, name, ids)
        return Along(axis, ids)

    def _assign(self, table: dict[str, Tensor], name: str, ids: Tensor) -> None:
        self.identities.join(table.setdefault(name, ids), ids)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(each)
