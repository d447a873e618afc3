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
#: what the entries outside the support read: zero (pruning), the initial value (FreezeNet), or
#: where they were frozen
Base = Literal["zero", "init", "held"]


class Coordinates:
    """A weight of D entries of which d, at the positions `support`, are trained: `psi`, an
    nn.Parameter of d numbers.

    The model's own parameter is the dense buffer that theta is written to. While all of it is
    trained, psi shares its memory and there are no positions."""

    def __init__(self, param: nn.Parameter) -> None:
        param.requires_grad_(False)
        param.data = (
            param.data.contiguous()
        )  # one layout: a flat position means the same everywhere
        self.param = param
        self.hook: Callable[[Tensor], None] | None = (
            None  # sees the dense gradient, if a method asked for it
        )
        self.set(param.data.view(-1), None, "zero")

    @torch.no_grad()
    def set(self, theta: Tensor, support: Support, base: Base) -> None:
        """Let theta (flat, D entries) be the weight and `support` its trained part."""
        flat = self.param.view(-1)
        flat.copy_(theta)
        if support is not None:
            support = (
                None if support.numel() == flat.numel() else support.to(flat.device, torch.int64)
            )
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
            # Always write: an optimiser may change psi without a trace. But where nothing is known
            # to have changed, the same values are written again, and a graph that waits for its
            # backward pass must not be called stale.
            flat, written = self.param.view(-1), (self.psi.data_ptr(), self.psi._version)
            with preserve_version(flat) if written == self._written else nullcontext():
                full = flat.detach().index_copy_(0, self.support, self.psi)
            weight = full.view(
                self.param.shape
            )  # a view remembers the version that it was made at: not before
            self._written = written
        else:
            return self.param  # frozen means not computed: no gradient here
        if self.hook and weight.requires_grad:
            weight.register_hook(self.hook)
        return weight

    @torch.no_grad()
    def dense(self) -> Tensor:
        """theta, flat and detached (D). It is the buffer itself: valid until the next change."""
        self.theta()
        return self.param.detach().view(-1)

    def trained(self) -> Tensor:
        """True at the support, flat (D)."""
        return self.scatter(torch.ones_like(self.psi, dtype=torch.bool))

    def scatter(self, values: Tensor) -> Tensor:
        """values (d) at the support, zero elsewhere (D)."""
        return (
            values
            if self.support is None
            else values.new_zeros(self.size).index_copy_(0, self.support, values)
        )

    def gather(self, dense: Tensor) -> Tensor:
        """The entries of dense (D) at the support (d)."""
        return dense.clone() if self.support is None else dense[self.support]
