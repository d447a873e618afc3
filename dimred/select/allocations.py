"""Allocations: the number of weights that each layer keeps, for a given total.

The counts of layers sum to the total exactly. No count decreases if the total grows, so that the
masks of a schedule can be nested. Users give the sparsity; functions here take the density, the
fraction of weights kept.

To add an allocation, write a class here and conf/allocation/NAME.yaml; `allocation=NAME` chooses
it. A class with fields derives from Checked, which checks their ranges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from dimred.errors import UserError
from dimred.fields import Checked, Fraction, NotNegative
from dimred.net import Net

#: the number of weights to keep: in total, or in each layer
Budget = int | Mapping[str, int]


class Allocation(Protocol):
    def __call__(self, net: Net, density: float) -> Budget:
        """The number of weights to keep: one number for all layers, or one for each layer. They sum
        to round(density * total)."""
        ...


@dataclass(frozen=True)
class Global:
    """One ranking over the weights of all layers."""

    def __call__(self, net: Net, density: float) -> Budget:
        return round(density * net.total)


@dataclass(frozen=True)
class Uniform:
    """The same density in every weight: d_l = d. (RigL's uniform keeps the first convolution dense:
    exclude it.)"""

    def __call__(self, net: Net, density: float) -> Budget:
        return _share(net, density, dict.fromkeys(net.weights, 1.0))


@dataclass(frozen=True, kw_only=True)
class UniformPlus(Checked):
    """The same density in every weight, but all of the first convolution and at least
    `last_density` of the last Linear layer.

    Gale, Elsen, Hooker, 2019 (arXiv:1902.09574). At extreme sparsity these two layers get at most
    half of the total."""

    group: ClassVar[str] = "allocation"
    last_density: Fraction = 0.2

    def __call__(self, net: Net, density: float) -> Budget:
        first, last = _convolutions(net)[:1], _linears(net)[-1:]
        least = dict.fromkeys(first, 1.0) | dict.fromkeys(last, self.last_density)
        return _share(net, density, dict.fromkeys(net.weights, 1.0), least)


@dataclass(frozen=True)
class ER:
    """Erdos-Renyi: d_l = min(1, eps * (n_in + n_out) / (n_in * n_out)), with eps such that the
    budget is met.

    Mocanu et al., Nature Communications 2018 (arXiv:1707.04780). The size of kernels has no
    influence; see ERK.
    """

    def __call__(self, net: Net, density: float) -> Budget:
        ends = {name: w.param.shape[:2] for name, w in net.weights.items()}
        return _share(
            net, density, {name: sum(shape) / math.prod(shape) for name, shape in ends.items()}
        )


@dataclass(frozen=True, kw_only=True)
class ERK(Checked):
    """Erdos-Renyi-Kernel: d_l = min(1, eps * (sum(shape_l) / prod(shape_l))^power), with eps such
    that the budget is met.

    Evci et al., ICML 2020 (arXiv:1911.11134), after Mocanu et al., 2018 (arXiv:1707.04780). eps
    accounts for full layers, so that the budget is met exactly; clamping their densities afterwards
    would miss it.
    """

    group: ClassVar[str] = "allocation"
    power: float = 1.0

    def __call__(self, net: Net, density: float) -> Budget:
        raw = {name: (sum(w.param.shape) / w.size) ** self.power for name, w in net.weights.items()}
        return _share(net, density, raw)


@dataclass(frozen=True)
class IGQ:
    """Ideal gas quotas: d_l = 1 / (1 + F * n_l), with F such that the budget is met; small layers
    have a higher density.

    Vysogorets, Kempe, JMLR 2023 (arXiv:2107.02306).
    """

    def __call__(self, net: Net, density: float) -> Budget:
        sizes = _sizes(net)
        # n_l d_l with F = 1 / eps
        return _meet(
            net, density, lambda eps: {name: eps * n / (eps + n) for name, n in sizes.items()}
        )


@dataclass(frozen=True)
class Balanced:
    """The same number of weights in every layer, at most all of them: min(n_l, eps).

    As in the code of TurboPrune (from memory); the other layers get what a small layer cannot take.
    """

    def __call__(self, net: Net, density: float) -> Budget:
        return _meet(net, density, lambda eps: dict.fromkeys(net.weights, eps))


@dataclass(frozen=True, kw_only=True)
class SmartRatio(Checked):
    """Lower densities towards the output: d_l = eps * ((L-l+1)^2 + (L-l+1)) / l^power for l = 1 ...
    L, and `last_density` in every Linear layer. power is 0, or 2 for VGG.

    Su et al., NeurIPS 2020 (arXiv:2009.11094). As in the official code, every Linear layer keeps
    the fraction `last_density`; the networks of the paper have one. The official code divides by
    zero in a network without convolutions; here only the last Linear layer then keeps this
    fraction. What does not fit into a full layer goes to all the others, in the official code to
    the next ones. At extreme sparsity the layers with a fixed fraction get at most half of the
    budget."""

    group: ClassVar[str] = "allocation"
    power: NotNegative = 0.0
    last_density: Fraction = 0.3

    def __call__(self, net: Net, density: float) -> Budget:
        fixed = _linears(net) if _convolutions(net) else _linears(net)[-1:]
        count = len(net.weights)
        raw = {}
        for l, name in enumerate(net.weights, start=1):  # noqa: E741
            left = count - l + 1
            raw[name] = (left**2 + left) / l**self.power
        # layers with a fixed fraction get more only when all others are full
        never = min(raw.values()) * 1e-9
        return _share(
            net, density, raw | dict.fromkeys(fixed, never), dict.fromkeys(fixed, self.last_density)
        )


def regrown(net: Net, left: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, int]:
    """The number of weights that each layer grows, beyond the `left` ones, so that the total stays
    the same: in proportion to `shares` (not negative), as far as layers have room."""
    if not math.isfinite(sum(shares.values())):
        raise UserError(
            "the weights or the momentum that decide which layers grow are not finite: training "
            "has diverged. "
            "Try a smaller recipe.lr, recipe.warmup=0.05 or recipe.clip=1"
        )
    # layers without a share grow only when all others are full
    least = sum(shares.values()) * 1e-9 or 1.0
    now = sum(w.dim for w in net.weights.values())
    counts = _meet(
        net,
        now / net.total,
        lambda eps: {name: left[name] + eps * (shares[name] + least) for name in left},
    )
    return {name: counts[name] - left[name] for name in left}


# -- counts that sum to a total --------------------
def _share(
    net: Net, density: float, raw: Mapping[str, float], least: Mapping[str, float] | None = None
) -> dict[str, int]:
    """Counts min(n_l, eps * n_l * raw_l). The densities `least` are lower limits, as long as they
    take at most half of the total."""
    sizes = _sizes(net)
    floors = {name: each * sizes[name] for name, each in (least or {}).items() if each > 0}
    wanted = sum(floors.values())
    others = [name for name in sizes if name not in floors]

    def quota(eps: float) -> dict[str, float]:
        """The layers with a lower limit together get, for the limit, at most as much as the other
        layers. If all layers have one, the limits are met first."""
        level = eps if others else max(0.0, eps - 1)
        quotas = {name: min(n, level * n * raw[name]) for name, n in sizes.items()}
        if not floors:
            return quotas
        reached = min(1.0, sum(quotas[name] for name in others) / wanted if others else eps)
        return quotas | {name: max(quotas[name], reached * floor) for name, floor in floors.items()}

    return _meet(net, density, quota)


def _meet(
    net: Net, density: float, quota: Callable[[float], Mapping[str, float]]
) -> dict[str, int]:
    """Counts min(n_l, round(quota_l(eps))), with eps such that they sum to exactly round(density *
    total).

    This is a divisor method (Webster). quota(0) is zero, no quota decreases as eps grows, and no
    quota depends on the total; therefore no count decreases if the total grows.
    """
    sizes = _sizes(net)
    budget = round(density * net.total)

    def counts(eps: float) -> dict[str, int]:
        return {name: min(sizes[name], math.floor(each + 0.5)) for name, each in quota(eps).items()}

    # counts grow with eps: double it until they suffice, then bisect
    low, high = 0.0, 1.0
    while sum(counts(high).values()) < budget:
        high *= 2
    while low < (middle := (low + high) / 2) < high and high > 1e-30:
        low, high = (middle, high) if sum(counts(middle).values()) < budget else (low, middle)
    # several layers may be next at the same eps: the first of them get the remaining weights
    out, more = counts(low), counts(high)
    for name in out:
        out[name] += min(more[name] - out[name], budget - sum(out.values()))
    return out


def _sizes(net: Net) -> dict[str, int]:
    return {name: w.size for name, w in net.weights.items()}


def _convolutions(net: Net) -> list[str]:
    return [name for name, w in net.weights.items() if w.param.dim() > 2]


def _linears(net: Net) -> list[str]:
    return [name for name, w in net.weights.items() if w.param.dim() == 2]
