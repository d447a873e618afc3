"""Reparametrisations of the weights, an option of every method: filter bases (interspace pruning)
and powerpropagation. The method then prunes and trains coefficients in place of weights."""

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
    """h = lambda F: a filter h of n pixels is the sum of the n rows of F, multiplied by the
    filter's coefficients lambda."""

    counted_as = "numbers of filter bases"

    def __init__(self, rows: Tensor, trainable: bool) -> None:
        super().__init__()
        self.n = len(rows)
        # one dimension, so that it has no weight decay, as biases have none
        flat = rows.reshape(-1).clone()
        if trainable:
            self.flat = nn.Parameter(flat)
        else:
            self.register_buffer("flat", flat)

    def forward(self, coefficients: Tensor) -> Tensor:
        """Coefficients (out, in, ...) to filters of the same shape. The product is never taken in
        bfloat16: full precision costs next to nothing here."""
        # inside autocast this product would round the filters to bfloat16
        with torch.autocast(coefficients.device.type, enabled=False):
            return (coefficients.reshape(-1, self.n) @ self.flat.view(self.n, self.n)).view(
                coefficients.shape
            )

    def inverse(self, filters: Tensor) -> Tensor:
        """Filters to coefficients, for an orthonormal F."""
        return (filters.reshape(-1, self.n) @ self.flat.view(self.n, self.n).T).view(filters.shape)


@dataclass(frozen=True, kw_only=True)
class Interspace(Checked):
    """Interspace pruning: represent convolution filters in a trained basis and prune their
    coefficients.

        h = sum_n lambda_n g_n;  dL/dlambda_n = <dL/dh, g_n>,
        dL/dg_n = sum of lambda_n dL/dh over all filters

    A basis F = (g_1, ..., g_n), n = K^2, is shared by all filters of one kernel size in a layer, in
    a group of layers, or in the network. A group is all layers with the same number of output
    channels (from memory: the paper's groups are stages). The n^2 numbers of a basis train as long
    as one of its coefficients does, without weight decay, and they count as trained (`dim`). The
    sparsity is that of the coefficients, and of the weights of the other layers. Whatever the
    basis, the initial filters are the model's own.

    Trains: d coefficients, and the K^4 numbers of each basis; stores: positions of coefficients,
    and the bases; needs: the dense gradients and weights of the method, and dense filters in every
    pass.

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
            # seeded by the name of the first weight in the basis, not by the order of draws
            if key not in bases:
                rows = INITS[self.init](
                    weight.shape[2:].numel(), generator(net, f"basis of {name}")
                )
                bases[key] = FilterBasis(rows.to(weight), self.trainable)
        net.add_bases({name: bases[key] for name, key in keys.items()})

    def key(self, name: str, shape: torch.Size) -> tuple:
        """The same for all weights that share a basis."""
        return shape[2:], {"layer": name, "group": shape[0], "network": None}[self.share]


def orthonormal(n: int, draws: torch.Generator) -> Tensor:
    """A random orthonormal basis (n, n), uniformly distributed (Haar measure)."""
    q, r = torch.linalg.qr(torch.randn(n, n, generator=draws, dtype=torch.float64))
    # QR fixes the signs by convention; with those of R's diagonal, Q is uniformly distributed
    return q * r.diagonal().sign()


INITS: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "standard": lambda n, draws: torch.eye(n),
    "random_orthonormal": orthonormal,
}


@dataclass(frozen=True, kw_only=True)
class PowerProp(Checked):
    """Powerpropagation: train a root of every weight, so that the gradient of a weight grows with
    its magnitude and small weights stay near zero.

        theta = phi |phi|^(alpha - 1),  phi_0 = sign(w_0) |w_0|^(1 / alpha);
        gradient g alpha |phi|^(alpha - 1)

    An option of every method. The method scores phi, which ranks like the weights: |phi| is
    monotonic in |w|, and phi * dL/dphi = alpha w * dL/dw. alpha = 1 is the identity. For alpha > 1,
    a weight at zero has no gradient and stays at zero, so methods that grow weights from zero do
    not work with it; a warning says so. Weight decay acts on phi. The last layer has the same
    sparsity as the others; the paper halves it there.

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
