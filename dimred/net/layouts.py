"""BatchNorm, pooling and dropout of activations with the batch innermost, as sparse convolutions
leave them.

PyTorch copies such activations into another layout first. They are views of what it is fast at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dimred.kernels import functions
from dimred.kernels.calls import DTYPES, inner, is_batch_innermost, outer
from dimred.kernels.library import library


class BatchInnermost(TorchFunctionMode):
    """Within the block, these functions keep the batch innermost."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        wrap = VIEWS.get(function)
        if wrap and args and args[0].dim() in (2, 4) and is_batch_innermost(args[0]):
            return wrap(function, *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def as_one_image(function: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A channel's mean and variance are over all images: view them as one."""
    view = inner(x)
    return outer(function(view.flatten(1)[None], *args, **kwargs)[0].view(view.shape))


def as_channels_last(function: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Pooling treats images and channels alike. With these exchanged, x is in channels_last."""
    return function(x.transpose(0, 1), *args, **kwargs).transpose(0, 1)


def dropout(
    function: Any, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Random numbers are drawn in the order of memory. In that of dense runs, the same are dropped
    as there."""
    if x.dim() == 2 and training and not inplace:
        x = x.contiguous()
    return function(x, p, training, inplace)


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
    F.dropout: dropout,
}
