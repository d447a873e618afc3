"""The compiled kernels as functions of tensors, without derivatives.

Activations lie with the batch innermost: a tensor (N, C, H, W) has strides (1, HWN, WN, N), one of
(N, C) strides (1, N). It is an ordinary tensor, and most of what lies between layers keeps that.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from dimred.kernels.library import library

DTYPES = {torch.float32: "float32", torch.float64: "float64"}
#: kernels count numbers in 32 bits
LARGEST = 2**31 - 1


def inner(x: Tensor) -> Tensor:
    """A view of activations with the batch as the last dimension."""
    return x.t() if x.dim() == 2 else x.permute(1, 2, 3, 0)


def outer(x: Tensor) -> Tensor:
    """The inverse of `inner`."""
    return x.t() if x.dim() == 2 else x.permute(3, 0, 1, 2)


def is_batch_innermost(x: Tensor) -> bool:
    """By strides alone, which is faster than looking at views."""
    return x.dim() in (2, 4) and x.stride() == strides(x.shape)


def strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Of activations of this shape with the batch innermost."""
    if len(shape) == 2:
        return 1, shape[0]
    batch, _, height, width = shape
    return 1, height * width * batch, width * batch, batch


def empty(like: Tensor, *shape: int) -> Tensor:
    """Memory for activations with the batch innermost."""
    return like.new_empty_strided(shape, strides(shape))


def batch_innermost(x: Tensor) -> Tensor:
    """The same activations with the batch innermost: themselves, or a copy."""
    if is_batch_innermost(x):
        return x
    out, rows = empty(x, *x.shape), x.shape[0]
    recorded = x.requires_grad and torch.is_grad_enabled()
    if recorded or not x.is_contiguous() or x.dtype not in DTYPES or library() is None:
        return out.copy_(x)
    function("transpose", x.dtype)(rows, x.numel() // max(1, rows), *pointers(x, out))
    return out


# -- Linear --------------------
def linear(x: Tensor, psi: Tensor, bias: Tensor | None, plan: Tensor, outputs: int) -> Tensor:
    x = batch_innermost(x)
    batch, inputs = x.shape
    out = empty(x, batch, outputs)
    function("linear_forward", x.dtype)(
        *(outputs, inputs, batch, psi.numel(), torch.get_num_threads()),
        *pointers(plan, psi, bias, x, out),
    )
    return out


def linear_backward(
    grad: Tensor, x: Tensor, psi: Tensor, plan: Tensor, needs_input: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of x (empty unless it is needed) and of psi."""
    grad, x = batch_innermost(grad), batch_innermost(x)
    batch, inputs = x.shape
    dx, dpsi = empty(x, batch, inputs) if needs_input else None, memory_for(psi, grad)
    function("linear_backward", x.dtype)(
        *(grad.shape[1], inputs, batch, psi.numel(), torch.get_num_threads()),
        *pointers(plan, psi, x, grad, dx, dpsi),
    )
    return x.new_empty(0) if dx is None else dx, dpsi


def memory_for(psi: Tensor, grad: Tensor) -> Tensor:
    """Memory for the gradient of psi. Of an empty batch, kernels write none."""
    return torch.empty_like(psi) if grad.numel() else torch.zeros_like(psi)


# -- Conv2d --------------------
def conv2d(
    x: Tensor,
    psi: Tensor,
    bias: Tensor | None,
    plan: Tensor,
    shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """shape: of the filters, (outputs, inputs, height, width)."""
    x = batch_innermost(x)
    size = out_size(x.shape, shape, stride, padding, dilation)
    out = empty(x, x.shape[0], shape[0], *size)
    function("conv2d_forward", x.dtype)(
        geometry(x.shape, shape, size, stride, padding, dilation),
        *(psi.numel(), torch.get_num_threads()),
        *pointers(plan, psi, bias, x, out),
    )
    return out


def conv2d_backward(
    grad: Tensor,
    x: Tensor,
    psi: Tensor,
    plan: Tensor,
    shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    needs_input: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of x (empty unless it is needed) and of psi."""
    grad, x = batch_innermost(grad), batch_innermost(x)
    dx, dpsi = empty(x, *x.shape) if needs_input else None, memory_for(psi, grad)
    function("conv2d_backward", x.dtype)(
        geometry(x.shape, shape, grad.shape[2:], stride, padding, dilation),
        *(psi.numel(), torch.get_num_threads()),
        *pointers(plan, psi, x, grad, dx, dpsi),
    )
    return x.new_empty(0) if dx is None else dx, dpsi


def out_size(
    x: Sequence[int],
    shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Any, Any]:
    """Height and width of the output of a convolution."""
    height, width = (
        (x[2 + d] + 2 * padding[d] - dilation[d] * (shape[2 + d] - 1) - 1) // stride[d] + 1
        for d in (0, 1)
    )
    return height, width


def geometry(
    x: Sequence[int], shape: Sequence[int], size: Sequence[int], *rest: Sequence[int]
) -> Any:
    """As struct Geometry of conv2d.cpp."""
    numbers = [*x, shape[0], *size, *shape[2:]]
    for pair in rest:
        numbers.extend(pair)
    return (ctypes.c_int * len(numbers))(*numbers)


# -- BatchNorm --------------------
def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
    """The normalised batch, and means, variances (biased) and the factors of channels."""
    x = batch_innermost(x)
    out = torch.empty_like(x)
    mean, variance, scale = (torch.empty_like(weight) for _ in range(3))
    function("batch_norm", x.dtype)(
        *(x.shape[1], x.numel() // x.shape[1], torch.get_num_threads()),
        *(eps, *pointers(x, weight, bias, out, mean, variance, scale)),
    )
    return out, mean, variance, scale


def batch_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias."""
    grad, x = batch_innermost(grad), batch_innermost(x)
    dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
    function("batch_norm_backward", x.dtype)(
        *(x.shape[1], x.numel() // x.shape[1], torch.get_num_threads()),
        *pointers(grad, x, weight, mean, scale, dx, dweight, dbias),
    )
    return dx, dweight, dbias


# -- calls of the library --------------------
TYPES: dict[str, Any] = {"i": ctypes.c_int, "d": ctypes.c_double, "p": ctypes.c_void_p}
ARGUMENTS = {
    "transpose": "iipp",
    "linear_forward": "iiiii" + "ppppp",
    "linear_backward": "iiiii" + "pppppp",
    "conv2d_forward": "pii" + "ppppp",
    "conv2d_backward": "pii" + "pppppp",
    "batch_norm": "iiid" + "ppppppp",
    "batch_norm_backward": "iii" + "pppppppp",
}


def pointers(*tensors: Tensor | None) -> list[int | None]:
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


@cache
def function(name: str, dtype: torch.dtype) -> Callable[..., None]:
    """A kernel, with the types of its arguments."""
    kernels = library()
    assert kernels is not None, "the caller has asked for the library"
    found = kernels[f"{name}_{DTYPES[dtype]}"]
    found.argtypes = [TYPES[letter] for letter in ARGUMENTS[name]]
    found.restype = None
    return found
