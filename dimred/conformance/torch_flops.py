"""FLOPs of a training step as torch.utils.flop_counter counts them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dimred.net import Net


def counted(net: Net, images: Tensor) -> tuple[int, int]:
    """FLOPs of a forward and of a backward pass, as PyTorch counts them. Of the weight gradients of
    grouped convolutions it counts those between all groups, which are never computed; they are
    taken off."""
    between = 0

    def note(m: nn.Module, given: object, out: Tensor) -> None:
        nonlocal between
        if isinstance(m, nn.Conv2d):
            between += 2 * (m.groups - 1) * m.weight.numel() * out[:, 0].numel()

    hook = nn.modules.module.register_module_forward_hook(note)
    net.train()
    with net.weights_in_place() as model, sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            loss = F.cross_entropy(model(images), torch.zeros(len(images), dtype=torch.int64))
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    hook.remove()
    return forward.get_total_flops(), backward.get_total_flops() - between
