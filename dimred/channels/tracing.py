"""Coupled channels, found by tracing a model: a convolution creates new channels, an addition
couples the channels of its operands, a norm passes channels on, and a Linear layer after flattening
uses each channel in several columns.

A function without a rule is safe: channels that it uses are never removed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dimred.net.outputs import logits_in

STAYS = -1  # the number of a channel that cannot be removed


class DisjointSet:
    """Disjoint sets of the numbers 0, 1, ... (union-find)."""

    def __init__(self, count: int) -> None:
        self.parents = list(range(count))

    def root(self, i: int) -> int:
        while self.parents[i] != i:
            # path halving keeps the trees flat
            self.parents[i] = i = self.parents[self.parents[i]]
        return i

    def join(self, one: Tensor, other: Tensor) -> None:
        """Unite the sets of each pair. The smallest number represents a set."""
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            # 0 stands for channels that cannot be removed, so it must stay the root of its set
            low, high = sorted((self.root(a), self.root(b)))
            self.parents[high] = low

    def roots(self) -> Tensor:
        return torch.tensor([self.root(i) for i in range(len(self.parents))], dtype=torch.int64)

    def new(self, count: int) -> Tensor:
        start = len(self.parents)
        self.parents += range(start, start + count)
        return torch.arange(start, start + count)


class ChannelTracer(TorchFunctionMode):
    """Runs a model on two images and follows the identities of its channels: numbers of a
    `DisjointSet`, in which coupled channels are in one set.

    rows, columns: for parameters and buffers, the channel of each index of dimension 0 and 1.
    filters, scales: the names of filters, and of scales of norms, in the order of computation.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.identities = DisjointSet(1)  # channels in the set of 0 cannot be removed
        self.rows, self.columns = dict[str, Tensor](), dict[str, Tensor]()
        self.filters, self.scales = list[str](), list[str]()
        twin = copy.deepcopy(model).eval()
        self._names = {id(tensor): name for name, tensor in tensors_of(twin)}
        self._ids = dict[int, Tensor]()  # channels (dimension 1) of computed tensors, by id
        # a reference to each tensor, because Python reuses the ids of deleted objects
        self._held = list[object]()
        self._elsewhere = set[str]()  # parameters used by functions without a rule
        images = next(twin.parameters()).new_zeros(2, *images.shape[1:])
        self._follow(images, torch.zeros(images.shape[1], dtype=torch.int64))
        with torch.no_grad(), self:
            logits = logits_in(twin(images))
        for tensor in _inside(logits):
            self.stay(self._ids.get(id(tensor)))
        for name in self._elsewhere:
            self.stay(self.rows.get(name))
            self.stay(self.columns.get(name))

    def stay(self, ids: Tensor | None) -> None:
        """Mark channels as not removable."""
        if ids is not None:
            self.identities.join(ids, torch.zeros_like(ids))

    def numbers(self) -> tuple[Tensor, int]:
        """For every identity, the number of its channel, or STAYS; and the number of channels."""
        roots = self.identities.roots()
        made = torch.cat([roots[:1], *(roots[self.rows[name]] for name in self.filters)]).unique()
        numbers = torch.full_like(roots, STAYS)
        numbers[made[1:]] = torch.arange(len(made) - 1)  # made[0] is 0, which stays
        return numbers[roots], len(made) - 1

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        made, read = list(_inside(out)), list(_inside((args, kwargs)))
        if made or out is None:  # other functions return shapes or numbers
            rule = RULES.get(getattr(function, "__name__", "").strip("_"))
            ids = rule(self, out, *args, **kwargs) if rule else None
            if ids is None:
                for tensor in read:
                    self.stay(self._ids.get(id(tensor)))
                # a parameter of a function without a rule keeps its shape, so its channels stay
                self._elsewhere |= {self._names[id(t)] for t in read if id(t) in self._names}
            for tensor in made:
                if ids is not None:
                    self._follow(tensor, ids)
                elif tensor.dim() > 1 and any(id(t) in self._ids for t in read):
                    self._follow(tensor, torch.zeros(tensor.shape[1], dtype=torch.int64))
        return out

    def _follow(self, tensor: Tensor, ids: Tensor) -> None:
        self._held.append(tensor)
        self._ids[id(tensor)] = ids

    # -- rules: the identities of the result's channels, or None if they cannot be followed
    # --------------------
    def _same(self, out: Any, input: Any, *args: Any, **kwargs: Any) -> Tensor | None:
        return self._ids.get(id(input))

    def _shaped(self, out: Tensor, input: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
        """Views and means that leave the first two dimensions alone, or flatten the pixels of each
        channel."""
        ids = self._ids.get(id(input))
        if ids is None or out.shape[:2] == input.shape[:2]:
            return ids
        flat = out.dim() == 2 and input.shape[0] == out.shape[0]
        if flat and out.numel() == input.numel():
            return ids.repeat_interleave(out.shape[1] // len(ids))
        return None

    def _mean(
        self, out: Tensor, input: Tensor, dim: Any = None, *args: Any, **kwargs: Any
    ) -> Tensor | None:
        if isinstance(dim, int):
            dim = [dim]
        # without a dimension, the mean is over all of them, the first included
        dims = {d % input.dim() for d in dim or [0]}
        return None if dims & {0, 1} else self._ids.get(id(input))

    def _slice(self, out: Tensor, input: Tensor, index: Any) -> Tensor | None:
        whole = isinstance(index, tuple) and index[:2] == (slice(None), slice(None))
        return self._ids.get(id(input)) if whole else None

    def _pad(
        self, out: Tensor, input: Tensor, pad: Any, *args: Any, **kwargs: Any
    ) -> Tensor | None:
        """Padding channels. The added channels cannot be removed: the model fixes their number."""
        ids, pixels = self._ids.get(id(input)), 2 * (input.dim() - 2)
        # pad names the last dimension first: pixels, then channels, then examples
        before, after = (0, 0)
        if len(pad) > pixels:
            before, after = (*pad, *[0] * 4)[pixels : pixels + 2]
        if ids is None or min(before, after) < 0 or len(pad) > pixels + 2:
            return None
        stays = torch.zeros(max(before, after), dtype=torch.int64)
        return torch.cat((stays[:before], ids, stays[:after]))

    def _join(self, out: Tensor, *operands: Any, **kwargs: Any) -> Tensor | None:
        """Sums and products couple the channels of their operands, channel by channel. An operand
        without known channels must be a single number."""
        tensors = list(_inside((operands, kwargs)))
        known = [self._ids[id(t)] for t in tensors if id(t) in self._ids]
        if (
            any(t.numel() > 1 for t in tensors if id(t) not in self._ids)
            or len({len(ids) for ids in known}) != 1
            or len({t.dim() for t in tensors if id(t) in self._ids}) != 1
        ):
            return None
        for ids in known[1:]:
            self.identities.join(known[0], ids)
        return known[0]

    def _cat(self, out: Tensor, tensors: Any, dim: int = 0) -> Tensor | None:
        known = [self._ids[id(t)] for t in tensors if id(t) in self._ids]
        if dim % out.dim() != 1 or len(known) < len(tensors):
            return None
        return torch.cat(known)

    def _norm(
        self,
        out: Tensor,
        input: Tensor,
        mean: Any = None,
        var: Any = None,
        weight: Any = None,
        bias: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor | None:
        if weight is not None and (name := self._names.get(id(weight))) and name not in self.scales:
            self.scales.append(name)
        return self._each(self._ids.get(id(input)), mean, var, weight, bias)

    def _prelu(self, out: Tensor, input: Tensor, weight: Tensor) -> Tensor | None:
        return self._each(self._ids.get(id(input)), *[weight][: weight.numel() - 1])

    def _conv(
        self,
        out: Tensor,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor | None:
        """All groups have to keep the same size: the channels at the same position of every group
        are coupled, unless each group has a single input channel (depthwise)."""
        name, ids = self._names.get(id(weight)), self._ids.get(id(input))
        if name is None or ids is None or input.dim() != weight.dim():
            return None
        outputs, inputs = weight.shape[:2]
        if groups == 1 or inputs > 1:
            self.identities.join(ids, ids[:inputs].repeat(groups))
            self._assign(self.columns, name, ids[:inputs])
            rows = (
                self.rows[name]
                if name in self.rows
                else self.identities.new(outputs // groups).repeat(groups)
            )
        else:
            rows = ids.repeat_interleave(outputs // groups)
        if name not in self.filters:
            self.filters.append(name)
        return self._each(rows, weight, bias)

    def _linear(
        self, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None
    ) -> Tensor | None:
        # _conv accepts two-dimensional inputs only: in others, channels are in the last dimension
        return self._conv(out, input, weight, bias)

    def _each(self, ids: Tensor | None, *tensors: Tensor | None) -> Tensor | None:
        """Record that the entries (or rows) of these tensors belong to the channels `ids`."""
        for tensor in tensors:
            if ids is not None and tensor is not None:
                name = self._names.get(id(tensor))
                if name is None:  # a computed tensor, not a parameter
                    self.stay(ids)
                else:
                    self._assign(self.rows, name, ids)
        return ids

    def _assign(self, table: dict[str, Tensor], name: str, ids: Tensor) -> None:
        self.identities.join(table.setdefault(name, ids), ids)


def _named(rule: Any, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), rule)


#: rules by the names of functions, without underscores: add and add_ share a rule
RULES: dict[str, Any] = {
    **_named(
        ChannelTracer._same,
        """
        relu relu6 leaky_relu elu selu celu gelu silu mish softplus
        hardtanh hardswish hardsigmoid sigmoid logsigmoid tanh neg abs square sqrt exp clamp
        dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout
        max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
        adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
        interpolate contiguous clone detach float double half to""",
    ),
    **_named(ChannelTracer._shaped, "flatten view reshape squeeze unsqueeze"),
    **_named(ChannelTracer._join, "add iadd radd sub isub rsub mul imul rmul div truediv itruediv"),
    **_named(ChannelTracer._mean, "mean sum amax"),
    **_named(ChannelTracer._cat, "cat concat concatenate"),
    **_named(ChannelTracer._norm, "batch_norm instance_norm"),
    **_named(ChannelTracer._conv, "conv1d conv2d conv3d"),
    "linear": ChannelTracer._linear,
    "prelu": ChannelTracer._prelu,
    "getitem": ChannelTracer._slice,
    "pad": ChannelTracer._pad,
}


def _inside(value: Any) -> Iterator[Tensor]:
    """The tensors in arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _inside(each)


def tensors_of(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]
