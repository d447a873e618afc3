"""BatchNorm, pooling and random numbers, where activations lie as sparse products leave them: with
the batch innermost.

PyTorch copies such activations for norms and pooling into another layout first. They are views of
what it is fast at. And it draws random numbers in the order of memory: here they are drawn in that
of dense products, so that the same entries are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dimred.kernels import functions
from dimred.kernels.calls import DTYPES, batch_innermost, inner, is_batch_innermost, outer
from dimred.kernels.library import library
from dimred.net.forward import in_channels_last

Layout = Callable[[Tensor], Tensor]


class BatchInnermost(TorchFunctionMode):
    """Within the block, VIEWS keep the batch innermost, and RANDOM draws as in dense runs.

    channels_last: whether these have their images in this layout.
    called, matters: whether any function was called in the block, and any of these.
    """

    def __init__(self, channels_last: bool = False) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.called = self.matters = False

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs, self.called = kwargs or {}, True
        if function in VIEWS or function in RANDOM:
            self.matters = True
            if function in VIEWS and args and is_batch_innermost(args[0]):
                return VIEWS[function](function, *args, **kwargs)
            if function in RANDOM and args and is_of_a_product(args[0]):
                return RANDOM[function](function, self.in_dense_runs, *args, **kwargs)
        return function(*args, **kwargs)

    def in_dense_runs(self, x: Tensor) -> Tensor:
        """Memory for these activations as dense products would leave them."""
        empty = x.new_empty(x.shape)
        return in_channels_last(empty) if self.channels_last and is_batch_innermost(x) else empty


def as_one_image(function: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A channel's mean and variance are over all images: view them as one."""
    view = inner(x)
    return outer(function(view.flatten(1)[None], *args, **kwargs)[0].view(view.shape))


def as_channels_last(function: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Pooling treats images and channels alike. With these exchanged, x is in channels_last."""
    return function(x.transpose(0, 1), *args, **kwargs).transpose(0, 1)


def batch_norm(
    function: Any,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """In training, by a kernel that takes a channel at a time, which fits into a core's cache."""
    ours = weight is not None and bias is not None and weight.dtype == x.dtype
    if not (training and ours and x.dtype in DTYPES and x.numel() > x.shape[1] and library()):
        settings = running_mean, running_var, weight, bias, training, momentum, eps
        return as_one_image(function, x, *settings)
    out, mean, variance = functions.BatchNorm.apply(x, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        positions = x.numel() / x.shape[1]
        running_mean.lerp_(mean, momentum)
        # running statistics have the unbiased variance
        running_var.lerp_(variance * (positions / (positions - 1)), momentum)
    return out


VIEWS: dict[Any, Callable[..., Tensor]] = {
    F.batch_norm: batch_norm,
    # what modules call is another function than the one of PyTorch's core
    F.max_pool2d: as_channels_last,
    torch.max_pool2d: as_channels_last,
    F.adaptive_max_pool2d: as_channels_last,
    F.avg_pool2d: as_channels_last,
    F.adaptive_avg_pool2d: as_channels_last,
}


# -- random numbers --------------------
def is_of_a_product(x: Tensor) -> bool:
    """Whether x lies as the output of a sparse product. Of a Linear layer with more dimensions, all
    but the last are the batch."""
    return is_batch_innermost(x) or (x.dim() > 1 and x.movedim(-1, 0).is_contiguous())


def dropout(
    function: Any,
    in_dense_runs: Layout,
    x: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Tensor:
    if not training:
        return function(x, p, training, inplace)
    factors = function(in_dense_runs(x).fill_(1), p)
    if is_batch_innermost(x):
        factors = batch_innermost(factors)
    return x.mul_(factors) if inplace else x * factors


def alpha_dropout(
    function: Any,
    in_dense_runs: Layout,
    x: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    out = function(in_dense_runs(x).copy_(x), p, training)
    return x.copy_(out) if inplace else out


def noise(function: Any, in_dense_runs: Layout, x: Tensor, **kwargs: Any) -> Tensor:
    return function(in_dense_runs(x), **kwargs)


RANDOM: dict[Any, Callable[..., Tensor]] = {
    F.dropout: dropout,
    F.alpha_dropout: alpha_dropout,
    torch.rand_like: noise,
    torch.randn_like: noise,
}
