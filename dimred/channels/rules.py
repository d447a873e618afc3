"""Which channels the result of a function has, by the channels of its arguments.

Each rule takes the trace, the result and the arguments of a function. It returns the channels of
the result, or None if they cannot be followed: these channels are never removed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dimred.channels.identities import FIXED, Along
from dimred.channels.trace import Trace, tensors_in
from dimred.channels.views import divided, follows


def same(trace: Trace, out: Any, input: Any, *args: Any, **kwargs: Any) -> Along | None:
    return trace.of(input)


def pooled(trace: Trace, out: Any, input: Tensor, *args: Any, **kwargs: Any) -> Along | None:
    """Functions of the pixels of each channel, which are in the dimensions after it."""
    known = trace.of(input)
    return known if known is FIXED or (known and known.axis == 1) else None


def softmax(
    trace: Trace, out: Any, input: Tensor, dim: Any = None, *args: Any, **kwargs: Any
) -> Any:
    known = trace.of(input)
    if known is None or known is FIXED:
        return known
    return None if dim is None or dim % input.dim() == known.axis else known


def moved(trace: Trace, out: Any, input: Tensor, *args: Any, **kwargs: Any) -> Along | None:
    """Views: they move the position of each channel as they move values."""
    known = trace.of(input)
    if known is None or known is FIXED:
        return known
    # of the same shape as the input, the positions along the channels' dimension
    places = torch.arange(len(known.ids))
    places = places.view(-1, *[1] * (input.dim() - 1 - known.axis)).expand(input.shape)
    moves = list(tensors_in(trace.function(places.contiguous(), *args, **kwargs)))
    # results that divide the channels among themselves cannot be followed
    if not all(torch.equal(each, moves[0]) for each in moves):
        return None
    name = trace.function.__name__
    if found := follows(name, moves[0], known.ids, args):
        return found
    if parts := divided(name, moves[0], known.ids, args):
        trace.identities.join(known.ids, parts.ids[parts.owner])
        return Along(parts.axis, parts.ids)
    return None


def chunk(trace: Trace, out: Any, input: Tensor, chunks: int, dim: int = 0) -> Along | None:
    """Equal parts of the channels are coupled, position by position."""
    known = trace.of(input)
    if known is None or known is FIXED or known.axis != dim % input.dim():
        return known
    if len(known.ids) % chunks:
        return None
    parts = known.ids.view(chunks, -1)
    for part in parts[1:]:
        trace.identities.join(parts[0], part)
    return Along(known.axis, parts[0])


def mean(
    trace: Trace, out: Tensor, input: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any
) -> Along | None:
    known = trace.of(input)
    if known is None or known is FIXED:
        return known
    # without a dimension, the mean is over all of them
    dims = {d % input.dim() for d in ([dim] if isinstance(dim, int) else dim or [known.axis])}
    if known.axis in dims:
        return None
    before = 0 if keepdim else sum(d < known.axis for d in dims)
    return Along(known.axis - before, known.ids)


def pad(
    trace: Trace,
    out: Tensor,
    input: Tensor,
    pad: Any,
    mode: str = "constant",
    *args: Any,
    **kw: Any,
) -> Along | None:
    """Padding channels. The added channels cannot be removed: the model fixes their number."""
    known = trace.of(input)
    if known is None or known is FIXED:
        return known
    # pad names the last dimension first, with what is added before and after
    at = 2 * (input.dim() - 1 - known.axis)
    before, after = (*pad, *[0] * 2 * input.dim())[at : at + 2]
    if min(before, after) < 0 or ((before or after) and mode != "constant"):
        return None
    stays = torch.zeros(max(before, after), dtype=torch.int64)
    return Along(known.axis, torch.cat((stays[:before], known.ids, stays[:after])))


def join(trace: Trace, out: Tensor, *operands: Any, **kwargs: Any) -> Along | None:
    """Sums and products couple the channels of their operands, channel by channel. An operand
    without known channels must be the same for all of them."""
    tensors = [*tensors_in((operands, kwargs))]
    axes, channels = set[int](), list[Tensor]()
    for tensor in tensors:
        if known := trace.removable(tensor):
            axes.add(known.axis - tensor.dim())  # from the end, as broadcasting counts
            channels.append(known.ids)
    if not channels:
        return FIXED if any(map(trace.of, tensors)) else None
    if len(axes) > 1 or len({len(ids) for ids in channels}) > 1:
        return None
    (axis,) = axes
    for tensor in tensors:
        fixed = trace.removable(tensor) is None
        if fixed and tensor.dim() >= -axis and tensor.shape[axis] > 1:
            return None
    for ids in channels[1:]:
        trace.identities.join(channels[0], ids)
    return Along(out.dim() + axis, channels[0])


def cat(trace: Trace, out: Tensor, tensors: Any, dim: int = 0) -> Along | None:
    parts = [trace.along(t, dim) for t in tensors]
    if all(trace.of(t) is FIXED for t in tensors):
        return FIXED
    known = [part for part in parts if part is not None]
    return Along(dim % out.dim(), torch.cat(known)) if len(known) == len(parts) else None


def norm(
    trace: Trace,
    out: Tensor,
    input: Tensor,
    mean: Any = None,
    var: Any = None,
    weight: Any = None,
    bias: Any = None,
    *args: Any,
    **kwargs: Any,
) -> Along | None:
    trace.note(trace.scales, weight)
    return trace.each(1, trace.along(input, 1), mean, var, weight, bias)


def prelu(trace: Trace, out: Tensor, input: Tensor, weight: Tensor) -> Along | None:
    if weight.numel() == 1:
        return same(trace, out, input)
    return trace.each(1, trace.along(input, 1), weight)


def attention(
    trace: Trace,
    out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any = None,
    **more: Any,
) -> Along | None:
    """Heads of queries, keys and values are coupled."""
    mask = more.get("attn_mask", mask)
    heads = batched(trace, out, query, key, value)
    if heads and heads is not FIXED and mask is not None and mask.dim() == out.dim():
        return heads if mask.shape[heads.axis] == 1 else None
    return heads


def batched(trace: Trace, out: Tensor, *operands: Tensor) -> Along | None:
    """Products of matrices, one for every channel."""
    known = [trace.of(t) for t in operands]
    if all(each is FIXED for each in known):
        return FIXED
    joined = join(trace, out, *operands) if None not in known else None
    return joined if joined and joined.axis < out.dim() - 2 else None


def conv(
    trace: Trace,
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
    return trace.product(1, trace.along(input, 1), weight, bias, groups)


def linear(
    trace: Trace, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Along | None:
    axis = input.dim() - 1
    return trace.product(axis, trace.along(input, axis), weight, bias)


def named(rule: Any, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), rule)


#: rules by the names of functions, without underscores: add and add_ share a rule
RULES: dict[str, Any] = {
    **named(
        same,
        """
        relu relu6 leaky_relu elu selu celu gelu silu mish softplus
        hardtanh hardswish hardsigmoid sigmoid logsigmoid tanh neg abs square sqrt exp clamp
        dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout
        contiguous clone detach float double half to""",
    ),
    **named(
        pooled,
        """
        max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
        adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d interpolate""",
    ),
    **named(
        moved,
        """
        flatten unflatten view reshape squeeze unsqueeze permute transpose swapaxes movedim
        unbind select narrow getitem expand""",
    ),
    **named(join, "add iadd radd sub isub rsub mul imul rmul div truediv itruediv"),
    **named(mean, "mean sum amax"),
    **named(cat, "cat concat concatenate"),
    **named(norm, "batch_norm instance_norm"),
    **named(conv, "conv1d conv2d conv3d"),
    **named(batched, "matmul bmm"),
    "linear": linear,
    "scaled_dot_product_attention": attention,
    "softmax": softmax,
    "chunk": chunk,
    "prelu": prelu,
    "pad": pad,
}
