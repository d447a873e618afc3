"""Products with sparse weights, differentiable once.

These are autograd functions. operators.py has them as operators of torch.library, which compilers
understand and which take 17 us more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dimred.kernels import calls
from dimred.kernels.calls import inner
from dimred.kernels.library import library
from dimred.kernels.plan import Plan


def linear(x: Tensor, psi: Tensor, bias: Tensor | None, plan: Plan) -> Tensor:
    """F.linear(x, W, bias) for the sparse W with entries psi."""
    rows = rows_of(x)
    if library() is None:
        out = by_embedding_bag(rows, psi, bias, plan)
    else:
        out = Linear.apply(rows, psi, bias, plan.numbers, plan.rows)
    return out if x.dim() == 2 else out.reshape(*x.shape[:-1], plan.rows)


def rows_of(x: Tensor) -> Tensor:
    return x if x.dim() == 2 else x.reshape(-1, x.shape[-1])


def by_embedding_bag(x: Tensor, psi: Tensor, bias: Tensor | None, plan: Plan) -> Tensor:
    """The same by PyTorch alone: a row of the output is a weighted sum of rows of x^T."""
    out = F.embedding_bag(
        plan.entry_columns, x.t(), plan.row_starts, mode="sum", per_sample_weights=psi
    )
    return out.t() if bias is None else out.t() + bias


def conv2d(
    x: Tensor,
    psi: Tensor,
    bias: Tensor | None,
    plan: Plan,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
) -> Tensor:
    """F.conv2d(x, W, bias, ...) for the sparse W with entries psi."""
    return Conv2d.apply(x, psi, bias, plan.numbers, plan.shape, stride, padding, dilation)


class Linear(torch.autograd.Function):
    """See calls.py for the arguments."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *arguments: Any) -> Tensor:
        x = calls.batch_innermost(x)
        remember(ctx, (x, *arguments))
        return calls.linear(x, *arguments)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return backward(ctx, grad, calls.linear_backward)


class Conv2d(torch.autograd.Function):
    """See calls.py for the arguments."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *arguments: Any) -> Tensor:
        x = calls.batch_innermost(x)
        remember(ctx, (x, *arguments))
        return calls.conv2d(x, *arguments)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return backward(ctx, grad, calls.conv2d_backward)


def remember(ctx: Any, inputs: tuple[Any, ...], output: Any = None) -> None:
    """Save what `backward` needs. This is no `setup_context` of the functions, because PyTorch
    looks at the signature of a function with that in every call."""
    x, psi, _, plan, *how = inputs
    ctx.save_for_backward(x, psi, plan)
    # of a convolution; a Linear layer's number of outputs is that of the gradient
    ctx.how = how if len(how) > 1 else ()


def backward(ctx: Any, grad: Tensor, kernel: Callable[..., Any]) -> tuple[Tensor | None, ...]:
    """The gradients of x, psi and bias, and none of what follows them."""
    require_one_derivative()
    needs_input, _, needs_bias, *others = ctx.needs_input_grad
    x, psi, plan = ctx.saved_tensors
    dx, dpsi = kernel(grad, x, psi, plan, *ctx.how, needs_input)
    dbias = inner(grad).flatten(1).sum(1) if needs_bias else None
    return dx if needs_input else None, dpsi, dbias, *[None] * len(others)


def require_one_derivative() -> None:
    """RuntimeError where a backward pass is to be differentiated."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "sparse kernels have no second derivatives (create_graph=True). Compute with dense "
            "weights: recipe.arithmetic=dense"
        )


class GradientOfEntries(torch.autograd.Function):
    """The output of a dense product with a weight that is a constant to it, unchanged. Entries psi
    of that weight get their gradients."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, psi: Tensor, x: Tensor, plan: Plan, *how: Any) -> Tensor:
        """x: the input of the product. how: stride, padding and dilation of a convolution."""
        ctx.save_for_backward(psi, x)
        ctx.plan, ctx.how = plan, how
        ctx.mark_dirty(out)  # or it would be a view, which nothing may change in place
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        require_one_derivative()
        psi, x = ctx.saved_tensors
        plan, how = ctx.plan, ctx.how
        activations = [grad, x] if how else [rows_of(grad), rows_of(x)]
        grads, inputs = map(calls.batch_innermost, activations)
        kernel: Callable[..., Any] = calls.conv2d_backward if how else calls.linear_backward
        shape = [plan.shape] if how else []
        _, dpsi = kernel(grads, inputs, psi, plan.numbers, *shape, *how, False)
        return grad, dpsi, *[None] * (2 + len(how))


class BatchNorm(torch.autograd.Function):
    """x -> weight * (x - mean) / sqrt(variance + eps) + bias, with the mean and the (biased)
    variance of the batch."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        out, mean, variance, scale = calls.batch_norm(x, weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        return *calls.batch_norm_backward(grad, *ctx.saved_tensors), None
