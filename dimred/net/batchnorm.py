"""Batch normalisation in channels_last on a CPU, with exact statistics.

PyTorch's kernel for this layout adds up float32 numbers one after the other, over all N * H * W
positions of a channel. At 100,000 positions the variance has a relative error of 1e-5 to 1e-4,
where the kernel for contiguous tensors, which adds up in double precision, has 4e-8. The layers
of a network multiply that error.

Here the same kernel sees each channel as k channels of at most `LONGEST` positions, and their
means and variances are combined in double precision. The k channels are a view of the same memory,
so this is as fast as the kernel alone. docs/channels_last.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, partial
from typing import Any, TypeGuard, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

Norm = TypeVar("Norm", bound=_BatchNorm)

#: positions that are added up in single precision
LONGEST = 1024
#: more channels side by side than this no longer fit into a core's cache
WIDEST = 2**16


def exact_statistics(norms: Iterable[nn.BatchNorm2d]) -> AbstractContextManager[None]:
    """Within the block, these norms (see `applies_to`) compute exact statistics where PyTorch's are
    not."""
    return replaced(norms, forward)


@contextmanager
def replaced(norms: Iterable[Norm], forward: Callable[[Norm, Tensor], Tensor]) -> Iterator[None]:
    """Within the block, these norms compute this function."""
    before = [(norm, vars(norm).get("forward")) for norm in norms]
    for norm, _ in before:
        # it hides the method of the class, for this module alone
        norm.__dict__["forward"] = partial(forward, norm)
    try:
        yield
    finally:
        for norm, own in before:
            if own is None:
                del norm.__dict__["forward"]
            else:
                norm.__dict__["forward"] = own


def applies_to(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Whether a module has the forward pass of BatchNorm2d: a subclass or an instance may have its
    own."""
    plain = isinstance(module, nn.BatchNorm2d) and type(module).forward is nn.BatchNorm2d.forward
    return plain and "forward" not in vars(module)


def forward(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """The same function as nn.BatchNorm2d."""
    groups = groups_of(x) if norm.training else 0
    if not groups:
        return nn.BatchNorm2d.forward(norm, x)
    norm._check_input_dim(x)
    weight = x.new_ones(x.shape[1]) if norm.weight is None else norm.weight
    bias = x.new_zeros(x.shape[1]) if norm.bias is None else norm.bias
    out, mean, variance = Normalise.apply(x, weight, bias, norm.eps, groups)
    # running statistics have the unbiased variance
    follow(norm, mean, variance * (x.numel() / (x.numel() - x.shape[1])))
    return out


def groups_of(x: Tensor) -> int:
    """Into how many groups to split the positions of x (N, C, H, W); 0 where PyTorch's sums are
    exact
    enough: in another layout, on another device, in another precision, or of few positions."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or x.dim() != 4 or x.is_contiguous():
        return 0
    if not x.is_contiguous(memory_format=torch.channels_last):
        return 0
    groups = smallest_divisor(x.numel() // x.shape[1])
    return groups if 1 < groups <= WIDEST // x.shape[1] else 0


@lru_cache
def smallest_divisor(positions: int) -> int:
    """The smallest number that divides `positions` into groups of at most LONGEST."""
    least = -(-positions // LONGEST)
    return next(k for k in range(least, positions + 1) if positions % k == 0)


@torch.no_grad()
def follow(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics towards those of a batch, as nn.BatchNorm2d does."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)


class Normalise(torch.autograd.Function):
    """x -> weight * (x - mean) / sqrt(variance + eps) + bias, with mean and variance (biased)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, groups: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = torch.batch_norm_update_stats(side_by_side(x, groups), None, None, 0.0)
        means, variances = (each.view(groups, -1) for each in found)
        # of groups of one size: the variance within them, on average, and that of their means
        between, mean = torch.var_mean(means.double(), 0, correction=0)
        variance = variances.mean(0, dtype=torch.float64) + between
        mean, scale = mean.float(), (variance + eps).rsqrt().float()
        variance = variance.float()
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        # the kernel's own sums are good enough here: gradients of both signs do not add up
        x, weight, mean, scale = ctx.saved_tensors
        gradients = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, None, None, mean, scale, True, 0.0, ctx.needs_input_grad[:3]
        )
        return *gradients, None, None


def side_by_side(x: Tensor, groups: int) -> Tensor:
    """A view of x (N, C, H, W), in channels_last, as (1, groups * C, positions / groups, 1)."""
    width = groups * x.shape[1]
    rows = x.numel() // width
    return x.as_strided((1, width, rows, 1), (x.numel(), 1, width, width))
