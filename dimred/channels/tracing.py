"""Coupled channels, found by tracing a model: a convolution or a Linear layer creates new channels,
an addition couples the channels of its operands, a norm passes channels on, and a Linear layer
after flattening uses each channel in several columns. Channels of images are in dimension 1, those
of tokens in the last one; heads of attention are channels, too, where the model divides a dimension
with -1 for their number: `unflatten(-1, (3, -1, dim))`.

A function without a rule is safe: channels that it uses are never removed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dimred.channels.identities import FIXED, STAYS, Along, DisjointSet
from dimred.channels.views import divided, follows
from dimred.net.outputs import logits_in


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
        self._channels = dict[int, Along]()  # of computed tensors, by id
        # a reference to each tensor, because Python reuses the ids of deleted objects
        self._held = list[object]()
        self._elsewhere = set[str]()  # parameters used by functions without a rule
        images = next(twin.parameters()).new_zeros(2, *images.shape[1:])
        self._follow(images, FIXED)
        with torch.no_grad(), self:
            logits = logits_in(twin(images))
        for tensor in _inside(logits):
            self.stay(self._channels.get(id(tensor), FIXED).ids)
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
            self._function = function
            found = rule(self, out, *args, **kwargs) if rule else None
            if found is None:
                for tensor in read:
                    self.stay(self._channels.get(id(tensor), FIXED).ids)
                # a parameter of a function without a rule keeps its shape, so its channels stay
                self._elsewhere |= {self._names[id(t)] for t in read if id(t) in self._names}
            for tensor in made:
                if found is not None or any(id(t) in self._channels for t in read):
                    self._follow(tensor, found or FIXED)
        return out

    def _follow(self, tensor: Tensor, channels: Along) -> None:
        self._held.append(tensor)
        self._channels[id(tensor)] = channels

    def _along(self, tensor: Tensor, axis: int) -> Tensor | None:
        """The identities along a dimension (axis < 0 counts from the end); None if they cannot be
        followed, or if those of another dimension are."""
        known = self._channels.get(id(tensor))
        if known is None or axis >= tensor.dim():
            return None
        if known is FIXED:
            return torch.zeros(tensor.shape[axis], dtype=torch.int64)
        return known.ids if known.axis == axis % tensor.dim() else None

    # -- rules: the channels of the results, or None if they cannot be followed
    # --------------------
    def _same(self, out: Any, input: Any, *args: Any, **kwargs: Any) -> Along | None:
        return self._channels.get(id(input))

    def _pooled(self, out: Any, input: Tensor, *args: Any, **kwargs: Any) -> Along | None:
        """Functions of the pixels of each channel, which are in the dimensions after it."""
        known = self._channels.get(id(input))
        return known if known is FIXED or (known and known.axis == 1) else None

    def _softmax(self, out: Any, input: Tensor, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
        known = self._channels.get(id(input))
        if known is None or known is FIXED:
            return known
        return None if dim is None or dim % input.dim() == known.axis else known

    def _moved(self, out: Any, input: Tensor, *args: Any, **kwargs: Any) -> Along | None:
        """Views: they move the position of each channel as they move values."""
        known = self._channels.get(id(input))
        if known is None or known is FIXED:
            return known
        # of the same shape as the input, the positions along the channels' dimension
        places = torch.arange(len(known.ids))
        places = places.view(-1, *[1] * (input.dim() - 1 - known.axis)).expand(input.shape)
        moved = list(_inside(self._function(places.contiguous(), *args, **kwargs)))
        # results that divide the channels among themselves cannot be followed
        if not all(torch.equal(each, moved[0]) for each in moved):
            return None
        name = self._function.__name__
        if found := follows(name, moved[0], known.ids, args):
            return found
        if parts := divided(name, moved[0], known.ids, args):
            self.identities.join(known.ids, parts.ids[parts.owner])
            return Along(parts.axis, parts.ids)
        return None

    def _chunk(self, out: Any, input: Tensor, chunks: int, dim: int = 0) -> Along | None:
        """Equal parts of the channels are coupled, position by position."""
        known = self._channels.get(id(input))
        if known is None or known is FIXED or known.axis != dim % input.dim():
            return known
        if len(known.ids) % chunks:
            return None
        parts = known.ids.view(chunks, -1)
        for part in parts[1:]:
            self.identities.join(parts[0], part)
        return Along(known.axis, parts[0])

    def _mean(
        self, out: Tensor, input: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any
    ) -> Along | None:
        known = self._channels.get(id(input))
        if known is None or known is FIXED:
            return known
        # without a dimension, the mean is over all of them
        dims = {d % input.dim() for d in ([dim] if isinstance(dim, int) else dim or [known.axis])}
        if known.axis in dims:
            return None
        before = 0 if keepdim else sum(d < known.axis for d in dims)
        return Along(known.axis - before, known.ids)

    def _pad(
        self, out: Tensor, input: Tensor, pad: Any, mode: str = "constant", *args: Any, **kw: Any
    ) -> Along | None:
        """Padding channels. The added channels cannot be removed: the model fixes their number."""
        known = self._channels.get(id(input))
        if known is None or known is FIXED:
            return known
        # pad names the last dimension first, with what is added before and after
        at = 2 * (input.dim() - 1 - known.axis)
        before, after = (*pad, *[0] * 2 * input.dim())[at : at + 2]
        if min(before, after) < 0 or ((before or after) and mode != "constant"):
            return None
        stays = torch.zeros(max(before, after), dtype=torch.int64)
        return Along(known.axis, torch.cat((stays[:before], known.ids, stays[:after])))

    def _join(self, out: Tensor, *operands: Any, **kwargs: Any) -> Along | None:
        """Sums and products couple the channels of their operands, channel by channel. An operand
        without known channels must be the same for all of them."""
        tensors = list(_inside((operands, kwargs)))
        known = [self._channels[id(t)] for t in tensors if id(t) in self._channels]
        moving = [each for each in known if each is not FIXED]
        if not moving:
            return FIXED if known else None
        axes = {
            self._channels[id(t)].axis - t.dim()
            for t in tensors
            if self._channels.get(id(t), FIXED) is not FIXED
        }
        if len(axes) > 1 or len({len(each.ids) for each in moving}) > 1:
            return None
        (axis,) = axes  # counted from the end, as broadcasting does
        for tensor in tensors:
            fixed = self._channels.get(id(tensor), FIXED) is FIXED
            if fixed and tensor.dim() >= -axis and tensor.shape[axis] > 1:
                return None
        for each in moving[1:]:
            self.identities.join(moving[0].ids, each.ids)
        return Along(out.dim() + axis, moving[0].ids)

    def _cat(self, out: Tensor, tensors: Any, dim: int = 0) -> Along | None:
        parts = [self._along(t, dim) for t in tensors]
        if all(self._channels.get(id(t)) is FIXED for t in tensors):
            return FIXED
        known = [part for part in parts if part is not None]
        return Along(dim % out.dim(), torch.cat(known)) if len(known) == len(parts) else None

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
    ) -> Along | None:
        if weight is not None and (name := self._names.get(id(weight))) and name not in self.scales:
            self.scales.append(name)
        return self._each(1, self._along(input, 1), mean, var, weight, bias)

    def _prelu(self, out: Tensor, input: Tensor, weight: Tensor) -> Along | None:
        if weight.numel() == 1:
            return self._same(out, input)
        return self._each(1, self._along(input, 1), weight)

    def _attention(
        self, out: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Any = None, **more: Any
    ) -> Along | None:
        """Heads of queries, keys and values are coupled."""
        mask = more.get("attn_mask", mask)
        heads = self._batched(out, query, key, value)
        if heads and heads is not FIXED and mask is not None and mask.dim() == out.dim():
            return heads if mask.shape[heads.axis] == 1 else None
        return heads

    def _batched(self, out: Tensor, *operands: Tensor) -> Along | None:
        """Products of matrices, one for every channel."""
        known = [self._channels.get(id(t)) for t in operands]
        if all(each is FIXED for each in known):
            return FIXED
        joined = self._join(out, *operands) if None not in known else None
        return joined if joined and joined.axis < out.dim() - 2 else None

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
    ) -> Along | None:
        """All groups have to keep the same size: the channels at the same position of every group
        are coupled, unless each group has a single input channel (depthwise)."""
        if input.dim() != weight.dim():  # without a batch
            return None
        return self._product(1, self._along(input, 1), weight, bias, groups)

    def _linear(
        self, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None
    ) -> Along | None:
        axis = input.dim() - 1
        return self._product(axis, self._along(input, axis), weight, bias)

    def _product(
        self, axis: int, ids: Tensor | None, weight: Tensor, bias: Tensor | None, groups: int = 1
    ) -> Along | None:
        name = self._names.get(id(weight))
        if name is None or ids is None:
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
        return self._each(axis, rows, weight, bias)

    def _each(self, axis: int, ids: Tensor | None, *tensors: Tensor | None) -> Along | None:
        """Record that the entries (or rows) of these tensors belong to the channels `ids`."""
        for tensor in tensors:
            if ids is not None and tensor is not None:
                name = self._names.get(id(tensor))
                if name is None:  # a computed tensor, not a parameter
                    self.stay(ids)
                else:
                    self._assign(self.rows, name, ids)
        return None if ids is None else Along(axis, ids)

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
        contiguous clone detach float double half to""",
    ),
    **_named(
        ChannelTracer._pooled,
        """
        max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
        adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d interpolate""",
    ),
    **_named(
        ChannelTracer._moved,
        """
        flatten unflatten view reshape squeeze unsqueeze permute transpose swapaxes movedim
        unbind select narrow getitem expand""",
    ),
    **_named(ChannelTracer._join, "add iadd radd sub isub rsub mul imul rmul div truediv itruediv"),
    **_named(ChannelTracer._mean, "mean sum amax"),
    **_named(ChannelTracer._cat, "cat concat concatenate"),
    **_named(ChannelTracer._norm, "batch_norm instance_norm"),
    **_named(ChannelTracer._conv, "conv1d conv2d conv3d"),
    **_named(ChannelTracer._batched, "matmul bmm"),
    "linear": ChannelTracer._linear,
    "scaled_dot_product_attention": ChannelTracer._attention,
    "softmax": ChannelTracer._softmax,
    "chunk": ChannelTracer._chunk,
    "prelu": ChannelTracer._prelu,
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
