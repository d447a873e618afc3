"""FLOPs of one operation: two for each multiplication in a matrix product or a convolution.

These are the formulas of torch.utils.flop_counter. Those of the usual operations are written out
here, because that module imports Triton, which takes 0.1 s; the others are looked up there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

#: which arguments of an operation are multiplied
OPERANDS = {
    aten.mm: (0, 1),
    aten.bmm: (0, 1),
    aten.addmm: (1, 2),
    aten.baddbmm: (1, 2),
    aten.convolution: (0, 1),
}
#: parts of the names of operations that PyTorch may have a formula for
LOOKED_UP = "mm", "conv", "attention"


def flops_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """The FLOPs of an operation that was executed; 0 of those that multiply no matrices."""
    packet = func.overloadpacket
    if formula := FORMULAS.get(packet):
        return formula(*args, out=out)
    if any(part in packet.__name__ for part in LOOKED_UP):
        return looked_up(packet, args, kwargs, out)
    return 0


def product(a: Tensor, b: Tensor, *, out: Tensor) -> int:
    """(..., m, k) times (..., k, n)."""
    return 2 * a.numel() * b.shape[-1]


def product_and_sum(c: Tensor, a: Tensor, b: Tensor, *, out: Tensor) -> int:
    return product(a, b, out=out)


def convolution(x: Tensor, weight: Tensor, *more: Any, out: Tensor) -> int:
    """Every entry of the weight counts once a position of the output; of the input where the
    convolution is transposed."""
    transposed = more[4]
    at = x if transposed else out
    return 2 * weight.numel() * (at.numel() // at.shape[1])


def convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *more: Any, out: Any) -> int:
    """For each gradient as much as the forward pass. PyTorch's formula for grouped convolutions
    counts weight gradients between groups, which are never computed."""
    mask = more[7]
    return convolution(x, weight, *more, out=grad) * (bool(mask[0]) + bool(mask[1]))


def lstm(x: Tensor, inputs: Tensor, state: Tensor, *more: Any, out: Any) -> int:
    """One direction of an LSTM layer, x (steps, examples, features), in the fused kernel of
    CPUs."""
    return 2 * x.shape[0] * x.shape[1] * (inputs.numel() + state.numel())


FORMULAS: dict[Any, Callable[..., int]] = {
    aten.mm: product,
    aten.bmm: product,
    aten.addmm: product_and_sum,
    aten.baddbmm: product_and_sum,
    aten.convolution: convolution,
    aten.convolution_backward: convolution_backward,
    aten.mkldnn_rnn_layer: lstm,
}
#: the fused kernels of CPUs, which PyTorch has no formulas for
SAME_AS = {
    aten._scaled_dot_product_flash_attention_for_cpu: aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        aten._scaled_dot_product_flash_attention_backward
    ),
}


def looked_up(packet: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """By PyTorch's formula; 0 if it has none."""
    from torch.utils.flop_counter import flop_registry

    formula = flop_registry.get(SAME_AS.get(packet, packet))
    return formula(*args, **kwargs, out_val=out) if formula else 0
