"""BatchNorm and pooling of activations with the batch innermost, as sparse convolutions leave them.

PyTorch copies such activations into another layout first. They are views of what it is fast at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dimred.kernels.calls import inner, outer


class BatchInnermost(TorchFunctionMode):
    """Within the block, these functions keep the batch innermost."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        wrap = VIEWS.get(function)
        if wrap and args and is_batch_innermost(args[0]):
            return wrap(function, *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def is_batch_innermost(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dim() == 4 and inner(x).is_contiguous()


def as_one_image(function: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A channel's mean and variance are over all images: view them as one."""
    view = inner(x)
    return outer(function(view.flatten(1)[None], *args, **kwargs)[0].view(view.shape))


def as_channels_last(function: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Pooling treats images and channels alike. With these exchanged, x is in channels_last."""
    return function(x.transpose(0, 1), *args, **kwargs).transpose(0, 1)


VIEWS: dict[Any, Callable[..., Tensor]] = {
    F.batch_norm: as_one_image,
    torch.max_pool2d: as_channels_last,
    F.avg_pool2d: as_channels_last,
    F.adaptive_avg_pool2d: as_channels_last,
}
