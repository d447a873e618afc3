"""The channels that remain after structured pruning, computed alone.

The coordinates stay those of the full model. Where structured pruning keeps some rows and columns
of a weight, psi has exactly their entries, in their order: it is the weight of the smaller model.
So steps use psi in place of theta, and the entries of biases, norms and running statistics that
belong to the remaining channels. Nothing else of the model changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dimred.channels.identities import STAYS
from dimred.channels.selection import Channels
from dimred.channels.tracing import tensors_of
from dimred.net import Net
from dimred.net.part import Compute, Part


class Remaining(Part):
    """The part of a net's model with the channels `kept` (count, bool)."""

    def __init__(self, net: Net, channels: Channels, kept: Tensor) -> None:
        self.count = int(kept.sum())
        self._shapes: dict[str, tuple[int, ...]] = {}
        for name, w in net.weights.items():
            rows, columns = (int(each.sum()) for each in channels.left(name, kept))
            self._shapes[name] = (rows, columns, *w.param.shape[2:])[: w.param.dim()]
        left = {
            name: ((numbers == STAYS) | kept[numbers]).nonzero().view(-1)
            for name, numbers in channels.rows.items()
        }
        # of what is not covered: where it is, and the indices that remain
        self._slots: list[tuple[dict[str, Any], str, Tensor]] = []
        self._groups: list[tuple[nn.Module, int]] = []
        names = {id(tensor): name for name, tensor in tensors_of(net.model)}
        for module in net.model.modules():
            for table in (module._parameters, module._buffers):
                for key, tensor in table.items():
                    name = names.get(id(tensor), "")
                    if tensor is None or name not in left or name in net.weights:
                        continue
                    if len(left[name]) < len(tensor):
                        self._slots.append((table, key, left[name]))
            self._look_at_groups(module, names)

    def _look_at_groups(self, module: nn.Module, names: Mapping[int, str]) -> None:
        """A depthwise convolution has a group for each channel, and as many filters in each as
        before."""
        if not isinstance(module, nn.modules.conv._ConvNd) or module.groups == 1:
            return
        # a weight that is computed from parameters has no name, and keeps its channels
        name = names.get(id(module._parameters.get("weight")), "")
        if name in self._shapes and module.groups == module.in_channels:
            filters = module.out_channels // module.groups
            self._groups.append((module, self._shapes[name][0] // filters))

    def thetas(self, net: Net) -> Mapping[str, Tensor]:
        return {name: w.psi.view(self._shapes[name]) for name, w in net.weights.items()}

    def of(self, model: nn.Module) -> Compute:
        """The model without the other channels."""

        def compute(images: Tensor) -> Tensor:
            with self._cut():
                return model(images)

        return compute

    @contextmanager
    def _cut(self) -> Iterator[None]:
        """Within the block, the model's other tensors have the remaining entries."""
        whole = [(table, key, table[key], index) for table, key, index in self._slots]
        groups = [(module, module.groups) for module, _ in self._groups]
        try:
            for table, key, tensor, index in whole:
                table[key] = tensor.index_select(0, index)
            for module, count in self._groups:
                module.groups = count  # type: ignore[assignment]
            yield
            with torch.no_grad():
                for table, key, tensor, index in whole:
                    if not isinstance(tensor, nn.Parameter):  # running statistics
                        tensor.index_copy_(0, index, table[key])
        finally:
            for table, key, tensor, _ in whole:
                table[key] = tensor
            for module, before in groups:
                module.groups = before


def remaining(net: Net, channels: Channels) -> Remaining | None:
    """What remains of a net, if some channels are removed and everything else trains."""
    trained = {name: w.trained().view(w.param.shape) for name, w in net.weights.items()}
    kept = channels.read(trained)
    if kept.all() or net.transforms or net.bases:
        return None
    for name, w in net.weights.items():
        rows, columns = channels.left(name, kept)
        block = int(rows.sum()) * int(columns.sum()) * (w.size // (len(rows) * len(columns)))
        inside = channels.supports(kept).get(name)
        if w.dim != block or (inside is not None and len(inside) != block):
            return None
        if w.support is not None and w.base != "zero":
            return None
    return Remaining(net, channels, kept)
