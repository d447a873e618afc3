"""Batch normalisation by the statistics of a batch that is spread over several processes.

PyTorch's SyncBatchNorm computes on GPUs alone. This is the same function on any device. Every
process has the mean and the variance of its part; they are combined in double precision, so that
all processes get the same bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from dimred.net.batchnorm import follow, replaced

#: the tensors of all processes, of one size, as rows
Gather = Callable[[Tensor], Tensor]


def norms_of(model: nn.Module) -> list[_BatchNorm]:
    """The norms that have the forward pass of nn.BatchNorm1d, 2d or 3d."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [norm for norm in norms if type(norm).forward is _BatchNorm.forward]


def synchronised(norms: Sequence[_BatchNorm], gather: Gather) -> AbstractContextManager[None]:
    """Within the block, these norms use the statistics of the whole batch in training."""
    return replaced(norms, partial(forward, gather)) if norms else nullcontext()


def forward(gather: Gather, norm: _BatchNorm, x: Tensor) -> Tensor:
    if not norm.training:
        return type(norm).forward(norm, x)
    norm._check_input_dim(x)
    weight = x.new_ones(x.shape[1]) if norm.weight is None else norm.weight
    bias = x.new_zeros(x.shape[1]) if norm.bias is None else norm.bias
    out, mean, unbiased = Normalise.apply(x, weight, bias, norm.eps, gather)
    follow(norm, mean, unbiased)
    return out


class Normalise(torch.autograd.Function):
    """x -> weight * (x - mean) / sqrt(variance + eps) + bias, with mean and unbiased variance."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, gather: Gather
    ) -> tuple[Tensor, Tensor, Tensor]:
        dims, width = [0, *range(2, x.dim())], x.shape[1]
        variance, mean = torch.var_mean(x.to(weight.dtype), dims, correction=0)
        count = mean.new_tensor([x.numel() // width])
        parts = gather(torch.cat((mean, variance, count)).double())
        means, variances, counts = parts.split((width, width, 1), 1)
        total = counts.sum()
        mean = (means * counts).sum(0) / total
        variance = ((variances + (means - mean).square()) * counts).sum(0) / total
        unbiased = (variance * (total / (total - 1))).to(weight)
        scale = (variance + eps).rsqrt().to(weight)
        mean, variance = mean.to(weight), variance.to(weight)
        ctx.gather, ctx.dims = gather, dims
        ctx.save_for_backward(x, weight, mean, scale, total.to(weight))
        ctx.mark_non_differentiable(mean, unbiased)
        ctx.set_materialize_grads(False)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, unbiased

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, total = ctx.saved_tensors
        shape = (1, -1, *[1] * (x.dim() - 2))
        wide, normalised = grad.to(weight), (x - mean.view(shape)) * scale.view(shape)
        own = torch.stack((wide.sum(ctx.dims), (wide * normalised).sum(ctx.dims)))
        # each value moves the mean and the variance of the whole batch
        along_bias, along_weight = ctx.gather(own.view(-1)).sum(0).view(2, *shape) / total
        moved = wide - along_bias - normalised * along_weight
        return (moved * (weight * scale).view(shape)).to(x), own[1], own[0], None, None
