"""The kernels as operators of torch.library: torch.ops.dimred.sparse_linear, sparse_conv2d."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dimred.kernels import calls
from dimred.kernels.functions import backward, remember

CONV2D = "Tensor plan, SymInt[] shape, SymInt[] stride, SymInt[] padding, SymInt[] dilation"
SCHEMAS = {
    "sparse_linear": "(Tensor x, Tensor psi, Tensor? bias, Tensor plan, SymInt outputs) -> Tensor",
    "sparse_linear_backward": "(Tensor grad, Tensor x, Tensor psi, Tensor plan, bool needs_input)"
    " -> (Tensor, Tensor)",
    "sparse_conv2d": f"(Tensor x, Tensor psi, Tensor? bias, {CONV2D}) -> Tensor",
    "sparse_conv2d_backward": f"(Tensor grad, Tensor x, Tensor psi, {CONV2D}, bool needs_input)"
    " -> (Tensor, Tensor)",
}


# -- the shapes and strides of results --------------------
def like_linear(x: Tensor, psi: Tensor, bias: Any, plan: Tensor, outputs: int) -> Tensor:
    return calls.empty(x, x.shape[0], outputs)


def like_conv2d(
    x: Tensor, psi: Tensor, bias: Any, plan: Tensor, shape: Sequence[int], *how: Any
) -> Tensor:
    size = calls.out_size(x.shape, shape, *how)
    return calls.empty(x, x.shape[0], shape[0], *size)


def like_inputs(grad: Tensor, x: Tensor, psi: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    needs_input = rest[-1]
    dx = calls.empty(x, *x.shape) if needs_input else x.new_empty(0)
    return dx, torch.empty_like(psi)


LIBRARY = torch.library.Library("dimred", "DEF")
for name, schema in SCHEMAS.items():
    LIBRARY.define(name + schema)
    LIBRARY.impl(name, getattr(calls, name.removeprefix("sparse_")), "CPU")
LIKE: dict[str, Callable[..., Any]] = {
    "sparse_linear": like_linear,
    "sparse_conv2d": like_conv2d,
    "sparse_linear_backward": like_inputs,
    "sparse_conv2d_backward": like_inputs,
}
for name, like in LIKE.items():
    torch.library.register_fake(f"dimred::{name}", like, lib=LIBRARY)
for name in ("sparse_linear", "sparse_conv2d"):
    kernel = getattr(torch.ops.dimred, f"{name}_backward")
    torch.library.register_autograd(
        f"dimred::{name}", partial(backward, kernel=kernel), setup_context=remember, lib=LIBRARY
    )
OPERATORS = torch.ops.dimred
