"""Intrinsic dimension: train in a random subspace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dimred.errors import UserError
from dimred.fields import Checked, Count, Positive
from dimred.net import Net
from dimred.net import projections as made
from dimred.net.transforms import Transform
from dimred.training.loop import Train

KEPT = 2**28  # the largest number of entries of a projection that is held in memory


@dataclass(frozen=True, kw_only=True)
class IntrinsicDimension(Checked):
    """Intrinsic dimension: train d numbers that move all weights in a random d-dimensional
    subspace.

        theta = theta_0 + P z,  z in R^d, z_0 = 0,  P random with E |P z|^2 = |z|^2

    dense: Gaussian columns of length 1. sparse: columns of round(sqrt D) entries +-D^(-1/4), one in
    each of as many equal stretches of theta. fastfood: H G Pi H B in O(D log D) time and O(D)
    memory, one for every weight tensor. P is generated from the seed and never stored. A dense
    projection that is too large for memory is generated again, in blocks, in every pass. At the end
    of training the weights are held at theta, and dim stays d. Biases and norms are frozen, unless
    train_biases_and_norms; in the paper all of them except BatchNorm are part of theta.

    Trains: the d numbers z; stores: instead of weights, z and the seed of theta_0 and P; needs:
    dense weights and gradients in every step, to be projected.

    Li, Farkhoor, Liu, Yosinski, ICLR 2018 (arXiv:1804.08838); fastfood: Le, Sarlos, Smola, ICML
    2013."""

    dim: Count = 750  # d
    projection: Literal["dense", "sparse", "fastfood"] = "fastfood"
    lr_scale: Positive = 10.0  # learning rate of z / recipe.lr
    train_biases_and_norms: bool = False

    def run(self, net: Net, train: Train) -> None:
        if self.dim > net.total:
            raise UserError(
                f"method.dim={self.dim} is more than the number of covered weights, {net.total}. "
                "Choose a smaller one"
            )
        z = nn.Parameter(
            next(iter(net.weights.values())).param.new_zeros(self.dim, requires_grad=False)
        )
        net.freeze(dict.fromkeys(net.weights if self.train_biases_and_norms else net.parameters()))
        net.add_transforms(projections(net, z, self.projection), lr=self.lr_scale, decay=0.0)
        train()
        # the stored file needs z and the seed alone: P and theta_0 are generated again
        displacement = made.Displacement(self.projection, net.seed, z.detach().clone())
        made.displace(net, displacement)


class Offset(Transform):
    """theta + P z; P (size, d) has the rows of one weight."""

    counted_as = "subspace coordinates"

    def __init__(self, z: nn.Parameter) -> None:
        super().__init__()
        self.z = z

    def forward(self, theta: Tensor) -> Tensor:
        return theta + self.project(self.z).view(theta.shape)

    def project(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def hold(self, name: str, value: Tensor) -> None:
        """Register a tensor that moves with the module and is not saved."""
        self.register_buffer(name, value.to(self.z.device), persistent=False)


def projections(net: Net, z: nn.Parameter, kind: str) -> dict[str, Offset]:
    """A transform for every covered weight, all with the same z."""
    sizes = {name: w.size for name, w in net.weights.items()}
    if kind == "sparse":
        return dict(zip(sizes, sparse(z, list(sizes.values()), net.seed), strict=True))
    if kind == "fastfood":
        return {
            name: Fastfood(z, size, made.fastfood(net.seed, i, size, net.total, len(z)))
            for i, (name, size) in enumerate(sizes.items())
        }
    parts = {
        name: DenseProjection(z, size, net.seed, i, net.total * len(z) <= KEPT)
        for i, (name, size) in enumerate(sizes.items())
    }
    # a column of P spans all weights, so its length sums over their rows
    length = sum(part.squares() for part in parts.values()).sqrt()  # type: ignore[union-attr]
    for part in parts.values():
        part.length.copy_(length)
    return dict(parts)


class DenseProjection(Offset):
    """Normal entries over the lengths of the columns. The entries are `kept` in memory, or
    generated in chunks of rows in every forward and backward pass, so that at most one chunk exists
    at a time."""

    length: Tensor

    def __init__(self, z: nn.Parameter, size: int, seed: int, index: int, kept: bool) -> None:
        super().__init__(z)
        self.size, self.seed, self.index = size, seed, index
        self.step = max(1, made.BLOCK // len(z))
        self.hold("length", torch.ones_like(z, requires_grad=False))
        self.rows = torch.cat([self.chunk(i) for i in range(0, size, self.step)]) if kept else None

    def chunk(self, i: int) -> Tensor:
        return torch.from_numpy(made.rows_of(self.seed, self.index, self.size, len(self.z), i)).to(
            self.z
        )

    def squares(self) -> Tensor:
        """The contribution of these rows to the squared lengths of the columns (d)."""
        total = torch.zeros_like(self.length)
        for i in range(0, self.size, self.step):
            total += self.chunk(i).square().sum(0)
        return total

    def project(self, z: Tensor) -> Tensor:
        z = z / self.length
        if self.rows is not None:
            return self.rows @ z
        return torch.cat(
            [
                checkpoint(
                    lambda x, i=i: self.chunk(i) @ x,
                    z,
                    use_reentrant=False,
                    # a chunk is generated from its own seed, not from torch's random state
                    preserve_rng_state=False,
                )
                for i in range(0, self.size, self.step)
            ]
        )


class Sparse(Offset):
    """A sparse projection: P[rows, columns] = values, in float64."""

    rows: Tensor
    columns: Tensor
    values: Tensor

    def __init__(
        self, z: nn.Parameter, size: int, rows: Tensor, columns: Tensor, values: Tensor
    ) -> None:
        super().__init__(z)
        self.size = size
        self.hold("rows", rows)
        self.hold("columns", columns)
        self.hold("values", values)

    def project(self, z: Tensor) -> Tensor:
        # Float32 would be added in another order in every run: by index_put on several threads of
        # a CPU, by index_add on a GPU. In float64 index_put keeps the order, here and backward.
        wide = z.double()
        moved = wide.new_zeros(self.size).index_put(
            (self.rows,), wide[self.columns] * self.values, accumulate=True
        )
        return moved.to(z.dtype)


def sparse(z: nn.Parameter, sizes: Sequence[int], seed: int) -> list[Sparse]:
    d, total = len(z), sum(sizes)
    if (entries := round(math.sqrt(total)) * d) > KEPT:
        raise UserError(
            f"a sparse projection of {d} numbers to {total} weights has {entries} entries, more "
            f"than memory is used for ({KEPT}). Choose method.projection=fastfood"
        )
    rows, columns, values = map(torch.from_numpy, made.sparse(seed, total, d))
    parts, start = [], 0
    for size in sizes:
        here = ((rows >= start) & (rows < start + size)).nonzero().view(-1)
        parts.append(Sparse(z, size, rows[here] - start, columns[here], values[here]))
        start += size
    return parts


class Fastfood(Offset):
    """The first `size` rows of H G Pi H B / sqrt(D |G|^2). H is the Hadamard matrix of the smallest
    power of two that is at least the sizes of z and of the weight, B has random signs, Pi is a
    permutation, and G is normal. D is the number of all covered weights, so that all parts of P
    together preserve lengths."""

    signs: Tensor
    order: Tensor
    gauss: Tensor

    def __init__(self, z: nn.Parameter, size: int, made_of: tuple[Any, Any, Any]) -> None:
        super().__init__(z)
        self.size = size
        signs, order, gauss = map(torch.from_numpy, made_of)
        self.hold("signs", signs.to(z.dtype))
        self.hold("order", order)
        self.hold("gauss", gauss.to(z.dtype))

    def flops(self) -> int:
        """The additions of the two transforms and of their gradients, in the fast algorithm,
        however they are computed."""
        n = len(self.signs)
        return 4 * n * (n.bit_length() - 1)

    def project(self, z: Tensor) -> Tensor:
        # B z is zero beyond its first block, so H B z repeats H of this block
        block = 1 << (len(z) - 1).bit_length()
        spread = hadamard(torch.nn.functional.pad(z, (0, block - len(z))) * self.signs[:block])
        spread = spread.repeat(len(self.signs) // block)
        return hadamard(spread.index_select(0, self.order) * self.gauss)[: self.size]


def hadamard(x: Tensor) -> Tensor:
    """The fast Walsh-Hadamard transform H x of x (n,), for n a power of two and H with entries +-1.

    H of a + b bits is the Kronecker product of H of a bits and H of b bits. Each pass multiplies up
    to six bits of the index by a small dense matrix and rotates them to the front; after the last
    pass all bits are back in their place."""
    bits = x.numel().bit_length() - 1
    while bits:
        some = min(bits, 6)
        x = (x.view(-1, 1 << some) @ hadamard_matrix(some, x.dtype, x.device)).t().reshape(-1)
        bits -= some
    return x


@lru_cache
def hadamard_matrix(bits: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    h = torch.ones(1, 1, dtype=dtype, device=device)
    for _ in range(bits):
        h = torch.cat((torch.cat((h, h), 1), torch.cat((h, -h), 1)))
    return h
