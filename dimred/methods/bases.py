"""Interspace pruning: an option of every method, which then chooses coefficients instead of pixels
of filters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from dimred.errors import UserError
from dimred.fields import Checked, at_least
from dimred.net import Net
from dimred.net.transforms import Transform
from dimred.scores import generator


class FilterBasis(Transform):
    """h = lambda F: a filter h of n pixels is the sum of the n rows of F, times its coefficients
    lambda."""

    counted_as = "numbers of filter bases"

    def __init__(self, rows: Tensor, trainable: bool) -> None:
        super().__init__()
        self.n = len(rows)
        flat = rows.reshape(
            -1
        ).clone()  # one dimension, so that it trains without decay, as biases do
        if trainable:
            self.flat = nn.Parameter(flat)
        else:
            self.register_buffer("flat", flat)

    def forward(self, coefficients: Tensor) -> Tensor:
        """Coefficients (out, in, ...) to filters of the same shape; never in bfloat16, as it costs
        next to nothing."""
        with torch.autocast(coefficients.device.type, enabled=False):
            return (coefficients.reshape(-1, self.n) @ self.flat.view(self.n, self.n)).view(
                coefficients.shape
            )

    def inverse(self, filters: Tensor) -> Tensor:
        """The reverse, where F is orthonormal."""
        return (filters.reshape(-1, self.n) @ self.flat.view(self.n, self.n).T).view(filters.shape)


@dataclass(frozen=True, kw_only=True)
class Interspace(Checked):
    """Interspace pruning: write convolution filters in a trained basis and prune their
    coefficients.

        h = sum_n lambda_n g_n;  dL/dlambda_n = <dL/dh, g_n>,
        dL/dg_n = sum of lambda_n dL/dh over all filters

    F = (g_1, ..., g_n), n = K^2, is one for each layer, each group of layers, or the network, of
    one kernel size; layers that make equally many channels are a group (from memory: the paper's
    groups are stages). Its n^2 numbers train as long as a coefficient does, without weight decay,
    and count as trained (`dim`). The sparsity is that of coefficients, and of the weights of other
    layers. Initial filters are the model's own, whatever the basis.

    Trains: d coefficients, and the K^4 numbers of each basis; stores: positions of coefficients,
    and the bases; needs: what the method needs, and dense filters in every pass.

    Wimmer, Mehnert, Condurache, CVPR 2022 (arXiv:2203.07808).
    """

    group: ClassVar[str] = "basis"
    share: Literal["layer", "group", "network"] = "layer"
    init: Literal["standard", "random_orthonormal"] = "standard"
    trainable: bool = True

    def apply(self, net: Net) -> None:
        shapes = {name: w.param.shape for name, w in net.weights.items()}
        keys = {
            name: self.key(name, shape) for name, shape in shapes.items() if shape[2:].numel() > 1
        }
        if not keys:
            raise UserError(
                f"basis={self.share} is for convolutions with more than one pixel, and no covered "
                f"weight of {type(net.model).__name__} is one. Choose a model that has some, "
                "such as model=resnet20, or basis=none"
            )
        bases: dict[tuple, FilterBasis] = {}
        for name, key in keys.items():
            weight = net.weights[name].param
            if key not in bases:
                rows = INITS[self.init](
                    weight.shape[2:].numel(), generator(net, f"basis of {name}")
                )
                bases[key] = FilterBasis(rows.to(weight), self.trainable)
        net.add_bases({name: bases[key] for name, key in keys.items()})

    def key(self, name: str, shape: torch.Size) -> tuple:
        """What weights with the same basis have in common."""
        return shape[2:], {"layer": name, "group": shape[0], "network": None}[self.share]


def orthonormal(n: int, draws: torch.Generator) -> Tensor:
    """Uniform among the orthonormal bases (n, n)."""
    q, r = torch.linalg.qr(torch.randn(n, n, generator=draws, dtype=torch.float64))
    return q * r.diagonal().sign()


INITS: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "standard": lambda n, draws: torch.eye(n),
    "random_orthonormal": orthonormal,
}


@dataclass(frozen=True, kw_only=True)
class PowerProp(Checked):
    """Powerpropagation: train a root of every weight, so that large weights learn faster than small
    ones.

        theta = phi |phi|^(alpha - 1),  phi_0 = sign(w_0) |w_0|^(1 / alpha);
        gradient g alpha |phi|^(alpha - 1)

    An option of every method, which then sees phi: magnitudes rank as those of weights do, and so
    do phi * dL/dphi = alpha w * dL/dw. alpha = 1 changes nothing. For alpha > 1 a weight at zero
    has no gradient and stays there: methods that grow weights from zero do not go with it, and a
    warning says so. Weight decay acts on phi. The last layer is pruned as the others are, where the
    paper halves its sparsity.

    Trains: what the method trains, as roots; stores: what the method stores; needs: what the method
    needs.

    Schwarz, Jayakumar, Pascanu, Latham, Teh, NeurIPS 2021 (arXiv:2110.00296).
    """

    group: ClassVar[str] = "basis"
    alpha: Annotated[float, at_least(1)] = 2.0

    def apply(self, net: Net) -> None:
        net.add_bases({name: Power(self.alpha) for name in net.weights})


class Power(Transform):
    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha, self.zero_gradient_at_zero = alpha, alpha > 1

    def forward(self, phi: Tensor) -> Tensor:
        return phi if self.alpha == 1 else phi.sign() * phi.abs() ** self.alpha

    def inverse(self, weight: Tensor) -> Tensor:
        return weight if self.alpha == 1 else weight.sign() * weight.abs() ** (1 / self.alpha)
