"""Which kernels of GPUs give the same bits in every run.

Some sum up in the order in which threads happen to finish, so two runs round differently.
`torch.use_deterministic_algorithms` lists the operations. Its own remedy, to sort before adding,
would slow down every training step; here they are avoided, and found where they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
#: sums in another order in every run
UNORDERED = {
    *(aten.cumsum, aten.cumsum_, aten.bincount, aten.histc, aten.put, aten.put_),
    *(aten.scatter_reduce, aten.scatter_reduce_, aten.nll_loss2d_forward, aten._ctc_loss_backward),
    *(aten.embedding_dense_backward, aten._embedding_bag_dense_backward),
    *(aten._adaptive_avg_pool2d_backward, aten._adaptive_avg_pool3d_backward),
    *(aten.adaptive_max_pool2d_backward, aten.avg_pool3d_backward),
    *(aten.max_pool3d_with_indices_backward, aten.max_unpool2d, aten.max_unpool3d),
    *(aten.fractional_max_pool2d_backward, aten.fractional_max_pool3d_backward),
    *(aten.reflection_pad1d_backward, aten.reflection_pad2d_backward),
    *(aten.reflection_pad3d_backward, aten.replication_pad1d_backward),
    *(aten.replication_pad2d_backward, aten.replication_pad3d_backward),
    *(aten.upsample_linear1d_backward, aten.upsample_bilinear2d_backward),
    *(aten.upsample_bicubic2d_backward, aten.upsample_trilinear3d_backward),
    *(aten.grid_sampler_2d_backward, aten.grid_sampler_3d_backward),
    # fused attention, on GPUs and on CPUs
    aten._scaled_dot_product_flash_attention_backward,
    aten._scaled_dot_product_efficient_attention_backward,
    aten._scaled_dot_product_cudnn_attention_backward,
    aten._scaled_dot_product_flash_attention_for_cpu_backward,
}
#: sums of entries at given places: in any order where several have the same place.
#: `index_put_` is none of these, as on a GPU it sorts the places
PLACED = {aten.index_add, aten.index_add_, aten.scatter_add, aten.scatter_add_}


def choose_kernels(deterministic: bool) -> None:
    """Let GPUs compute by kernels that give the same bits in every run, or by the fastest ones.

    cuDNN has gradients of convolutions of both kinds. Of PyTorch's kernels of attention, only the
    plain one (MATH) is deterministic by default.
    """
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cuda.enable_flash_sdp(not deterministic)
    torch.backends.cuda.enable_mem_efficient_sdp(not deterministic)
    torch.backends.cuda.enable_cudnn_sdp(not deterministic)


def is_unordered(func: Any, args: Sequence[Any]) -> bool:
    """Whether a GPU adds up floating-point numbers in another order each time it computes an
    operation of ATen with these arguments. On a GPU this may wait for values."""
    packet = func.overloadpacket
    unordered = packet in UNORDERED or (packet in PLACED and collides(args[2], args[1]))
    return unordered and any(is_float(each) for each in args)


def is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def collides(places: Tensor, dim: int) -> bool:
    """Whether two entries along a dimension have the same place."""
    dim = dim if places.dim() > 1 else 0
    ordered = places.sort(dim).values
    return bool((ordered.diff(dim=dim) == 0).any())
