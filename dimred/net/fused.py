"""Covered weights side by side, written by one scatter and differentiated by one gather.

A network of the surveys has twenty weights or more, each so small that a GPU spends its time on
starting kernels. Here one kernel writes the trained numbers of all weights, in the layout and the
number format in which they are used, and one gathers their gradients. So a sparse step under bf16
has no cast of whole weights, which dense training pays for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dimred.net.coordinates import Coordinates

#: elements
ALIGNED = 64


class FusedWeights:
    """The weights of which a part is trained, in one buffer of one number format.

    It holds for the present coordinates: after a change, `refill` it or make another one.
    channels_last: give weights of convolutions (4 dimensions) this layout.
    """

    def __init__(
        self, weights: Mapping[str, Coordinates], dtype: torch.dtype, channels_last: bool
    ) -> None:
        self.weights, self.channels_last = dict(weights), channels_last
        first = next(iter(self.weights.values())).param
        self.dims = [w.dim for w in self.weights.values()]
        # each weight starts at a multiple of ALIGNED, as kernels of convolutions prefer
        self.lengths = [-(-w.size // ALIGNED) * ALIGNED for w in self.weights.values()]
        self.buffer = torch.zeros(sum(self.lengths), dtype=dtype, device=first.device)
        # where the trained numbers lie in the buffer, and in the gradients side by side
        self.targets = torch.empty(sum(self.dims), dtype=torch.int64, device=first.device)
        self.sources = torch.empty_like(self.targets)
        self.refill()

    @torch.no_grad()
    def refill(self) -> bool:
        """Take the present coordinates; whether there are as many as before. Otherwise nothing
        changes."""
        if self.dims != [w.dim for w in self.weights.values()]:
            return False
        targets, sources = list[Tensor](), list[Tensor]()
        start = end = 0
        for w, part in zip(self.weights.values(), self._parts(), strict=True):
            assert w.support is not None
            part.copy_(w.dense().view(w.param.shape))
            positions = self._in_memory(w, w.support)
            targets.append(start + positions)
            sources.append(end + positions)
            start += self.lengths[len(targets) - 1]
            end += w.size
        torch.cat(targets, out=self.targets)
        torch.cat(sources, out=self.sources)
        return True

    def thetas(self) -> dict[str, Tensor]:
        """theta of every weight, differentiable in psi. Once in a step: the next call overwrites
        these tensors."""
        written = _Scatter.apply(self, *(w.psi for w in self.weights.values()))
        return dict(zip(self.weights, written, strict=True))

    def scatter(self, psi: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The weights with these trained numbers."""
        values = torch.cat(psi).to(self.buffer.dtype)
        self.buffer.index_copy_(0, self.targets, values)
        return tuple(part.detach() for part in self._parts())

    def gather(self, grads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The gradients of psi, of those of the weights."""
        for w, grad in zip(self.weights.values(), grads, strict=True):
            if w.hook:
                w.hook(grad.to(w.param.dtype, memory_format=torch.contiguous_format))
        dense = torch.cat([self._flat(grad) for grad in grads])
        values = dense.index_select(0, self.sources).to(next(iter(self.weights.values())).psi)
        return values.split(self.dims)

    # -- layouts --------------------
    def _parts(self) -> Iterator[Tensor]:
        """The weights that lie in the buffer, each in its shape."""
        for w, padded in zip(self.weights.values(), self.buffer.split(self.lengths), strict=True):
            shape, part = w.param.shape, padded[: w.size]
            if self._is_channels_last(w.param):
                yield part.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)
            else:
                yield part.view(shape)

    def _is_channels_last(self, weight: Tensor) -> bool:
        return self.channels_last and weight.dim() == 4

    def _flat(self, grad: Tensor) -> Tensor:
        """A weight's gradient, flat, in the order of the buffer."""
        if self._is_channels_last(grad):
            grad = grad.permute(0, 2, 3, 1)
        return grad.reshape(-1).to(self.buffer.dtype)

    def _in_memory(self, w: Coordinates, support: Tensor) -> Tensor:
        """Where the entries at these flat positions of a weight lie in the layout."""
        if not self._is_channels_last(w.param):
            return support
        _, channels, height, width = w.param.shape
        window = height * width
        outer = support.div(channels * window, rounding_mode="floor")
        inner = support - outer * channels * window
        channel = inner.div(window, rounding_mode="floor")
        return outer * channels * window + (inner - channel * window) * channels + channel


class _Scatter(torch.autograd.Function):
    """psi -> theta. Its derivative gathers: once, for the gradients of a training step."""

    @staticmethod
    def forward(ctx: Any, fused: FusedWeights, *psi: Tensor) -> tuple[Tensor, ...]:
        ctx.fused = fused
        return fused.scatter(psi)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.fused.gather(grads)


def fuse(
    weights: Mapping[str, Coordinates], half: set[str], channels_last: bool
) -> list[FusedWeights]:
    """Pack the weights of which a part is trained; `half` names those that are used in bf16."""
    fused = []
    groups: dict[torch.dtype, dict[str, Coordinates]] = {}
    for name, w in weights.items():
        if w.support is not None and w.dim:
            dtype = torch.bfloat16 if name in half else w.param.dtype
            groups.setdefault(dtype, {})[name] = w
    for dtype, group in groups.items():
        fused.append(FusedWeights(group, dtype, channels_last))
    return fused


def used_in_half(model: nn.Module) -> set[str]:
    """The weights that autocast would cast for every use: those of PyTorch's own
    layers of products, which nothing else holds."""
    products = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    owners: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(module)
    found = set()
    for name, parameter in model.named_parameters():
        if all(type(module) in products for module in owners[id(parameter)]):
            found.add(name)
    return found
