"""One weight tensor through the numbers that train it:   theta = base;  theta[support] = psi."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd import _unsafe_preserve_version_counter as preserve_version

#: which entries of a weight: sorted flat positions (int64), or None for all of them
Support = Tensor | None
Supports = Mapping[str, Support]
#: the value of entries outside the support: zero (pruning), the initial value (FreezeNet), or the
#: value at which they were frozen
Base = Literal["zero", "init", "held"]


class Coordinates:
    """A weight of D entries of which d, at the positions `support`, are trained: `psi`, an
    nn.Parameter of d numbers.

    The model's own parameter is the dense buffer that theta is written to. While all of it is
    trained, psi shares its memory and there are no positions."""

    def __init__(self, param: nn.Parameter) -> None:
        param.requires_grad_(False)
        # one layout, so that a flat position means the same everywhere
        param.data = param.data.contiguous()
        self.param = param
        # called with the dense gradient, if a method asks for it
        self.hook: Callable[[Tensor], None] | None = None
        self.set(param.data.view(-1), None, "zero")

    @torch.no_grad()
    def set(self, theta: Tensor, support: Support, base: Base) -> None:
        """Set the weight to theta (flat, D entries), of which the support is trained."""
        flat = self.param.view(-1)
        flat.copy_(theta)
        if support is not None and support.numel() == flat.numel():
            support = None
        if support is not None:
            support = support.to(flat.device, torch.int64)
        self.support, self.base = support, base
        self.psi = nn.Parameter(flat.detach() if support is None else flat[support])
        self._written: tuple[int, int] | None = None

    @property
    def size(self) -> int:
        return self.param.numel()

    @property
    def dim(self) -> int:
        return self.psi.numel()

    def theta(self) -> Tensor:
        """The weight, differentiable in psi: psi.grad is the dense gradient at the support."""
        if self.support is None:
            weight = self.psi.view(self.param.shape)
        elif self.psi.numel() or self.hook:
            # Always write psi into the buffer: a fused optimiser changes psi without changing its
            # version. If psi was not changed since the last write, the same values are written, and
            # the version of the buffer is kept, so that autograd accepts an earlier graph.
            flat, written = self.param.view(-1), (self.psi.data_ptr(), self.psi._version)
            with preserve_version(flat) if written == self._written else nullcontext():
                full = flat.detach().index_copy_(0, self.support, self.psi)
            # a view has the version of the time when it is made: make it after the write
            weight = full.view(self.param.shape)
            self._written = written
        else:
            return self.param  # nothing is trained: no gradient is computed
        if self.hook and weight.requires_grad:
            weight.register_hook(self.hook)
        return weight

    @torch.no_grad()
    def dense(self) -> Tensor:
        """theta, flat and detached (D). This is the buffer itself: valid until the next change."""
        self.theta()
        return self.param.detach().view(-1)

    def stored(self) -> list[Tensor]:
        """What is in memory for the weight besides psi."""
        return [] if self.support is None else [self.support, self.param]

    def trained(self) -> Tensor:
        """True at the support, flat (D)."""
        return self.scatter(torch.ones_like(self.psi, dtype=torch.bool))

    def scatter(self, values: Tensor) -> Tensor:
        """values (d) at the support, zero elsewhere (D)."""
        if self.support is None:
            return values
        return values.new_zeros(self.size).index_copy_(0, self.support, values)

    def gather(self, dense: Tensor) -> Tensor:
        """The entries of dense (D) at the support (d)."""
        return dense.clone() if self.support is None else dense[self.support]
