"""What methods of sparse training share: where they start from, and how they exchange weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dimred.allocate import Allocation
from dimred.coordinates import Supports
from dimred.errors import UserError, require
from dimred.net import Net
from dimred.scores import noise
from dimred.select import grow_random, topk


@dataclass(frozen=True)
class RandomStart:
    """Methods that start from random weights, as many of each layer as the allocation says."""

    sparsity: float
    allocation: Allocation
    # divide weights by the root of their neuron's density
    scale_fan_in: bool = field(default=False, kw_only=True)

    def keep_random(self, net: Net, sparsity: float | None = None) -> None:
        """Train random weights: those of the method's own sparsity, or of another."""
        sparsity = self.sparsity if sparsity is None else sparsity
        net.keep(topk(noise(net), self.allocation(net, 1 - sparsity)))
        if self.scale_fan_in:
            scale_by_fan_in(net)


@torch.no_grad()
def scale_by_fan_in(net: Net) -> None:
    """Multiply the trained weights of each neuron by sqrt(number of its inputs / number of those
    that are trained).

    Initial weights are drawn for all inputs; scaled, they give the neuron's output the variance of
    the dense neuron. Evci, Ioannou, Keskin, Dauphin, AAAI 2022 (arXiv:2010.03533), draw them anew
    for the smaller number instead. UserError in a basis, where theta are coefficients."""
    if net.bases:
        raise UserError(
            "method.scale_fan_in=true scales weights, and a basis has coefficients "
            "instead. Choose method.scale_fan_in=false or basis=none"
        )
    for w in net.weights.values():
        if w.param.dim() > 1:  # biases have no fan-in
            inputs = w.trained().view(len(w.param), -1)
            scale = (inputs.shape[1] / inputs.sum(1, keepdim=True).clamp_min(1)).sqrt()
            w.psi.mul_(w.gather(scale.expand(inputs.shape).reshape(-1)).to(w.psi))


def drop_counts(net: Net, fraction: float, rounded: Callable[[float], int] = int) -> dict[str, int]:
    """This fraction of the trained weights of each layer, rounded down or by math.ceil, but never
    the last one; none of a full layer, which has nowhere to grow."""
    dims = {name: w.dim if w.support is not None else 0 for name, w in net.weights.items()}
    return {name: max(0, min(rounded(fraction * dim), dim - 1)) for name, dim in dims.items()}


def gradient_magnitude(net: Net) -> dict[str, Tensor]:
    """|dL/dtheta|, trained or not."""
    return {name: grad.abs() for name, grad in net.grads().items()}


def drop_and_regrow(net: Net, kept: Supports, counts: Mapping[str, int]) -> None:
    """Drop what is not kept, and grow at random. In two steps: what is drawn again starts at zero
    like any other."""
    net.keep(kept)
    net.keep(grow_random(net, kept, counts))


def require_fractions(**fields: float) -> None:
    for name, value in fields.items():
        require(0 <= value <= 1, f"method.{name}", value, "a fraction in [0, 1]")
