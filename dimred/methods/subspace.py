"""Train in a subspace: a net given by few numbers, or a line of nets instead of a point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dimred import projections as made
from dimred.errors import UserError, require
from dimred.net import Net
from dimred.scores import generator, redrawn
from dimred.train import Train

KEPT = 2**28  # entries of a projection that may be held in memory


# -- intrinsic dimension --------------------
@dataclass(frozen=True)
class IntrinsicDimension:
    """Train d numbers that move all weights along d random directions, whose number is so the net's
    own dimension.

        theta = theta_0 + P z,  z in R^d, z_0 = 0,  P random with E |P z|^2 = |z|^2

    dense: Gaussian columns of length 1. sparse: columns of round(sqrt D) entries +-D^(-1/4), one in
    each of as many stretches of theta. fastfood: H G Pi H B in O(D log D) time and O(D) memory, one
    for every weight tensor. P is never stored but made from the seed. Dense projections that are
    too large to be held are made again in parts whenever they are needed. In the end the weights
    are held at theta, and dim stays d. Biases and norms are left untrained, unless `others`: in the
    paper they are part of theta, but for BatchNorm.

    Trains: the d numbers z; stores: instead of weights, z and the seed of theta_0 and P; needs:
    dense weights and gradients in every step, to be projected.

    Li, Farkhoor, Liu, Yosinski, ICLR 2018 (arXiv:1804.08838); fastfood: Le, Sarlos, Smola, ICML
    2013."""

    dim: int  # d
    projection: Literal["dense", "sparse", "fastfood"]
    lr: float  # of z, times the recipe's
    others: bool

    def __post_init__(self) -> None:
        require(self.dim > 0, "method.dim", self.dim, "1 or more")
        require(self.lr > 0, "method.lr", self.lr, "a number above 0")

    def run(self, net: Net, train: Train) -> None:
        if self.dim > net.total:
            raise UserError(
                f"method.dim={self.dim} is more than the {net.total} weights there are. Choose fewer"
            )
        z = nn.Parameter(
            next(iter(net.weights.values())).param.new_zeros(self.dim, requires_grad=False)
        )
        net.freeze(dict.fromkeys(net.weights if self.others else net.parameters()))
        net.embed(projections(net, z, self.projection), lr=self.lr, decay=0.0)
        train()
        self.settle(net, z.detach())

    def settle(self, net: Net, z: Tensor) -> None:
        """Hold the weights where z has moved them, to the bit as whoever has z and the seed makes
        them again."""
        initial = {
            name: theta.to(torch.float64, copy=True).view(-1)
            for name, theta in net.thetas().items()
        }
        net.fold(hold=True)
        sizes = {name: w.size for name, w in net.weights.items()}
        moves = made.moved(self.projection, net.seed, sizes, z.cpu().numpy())
        for name, w in net.weights.items():
            w.set(
                initial[name] + torch.from_numpy(moves[name]).to(initial[name]), w.support, w.base
            )
        net.notes[f"z/{self.projection}"] = z.clone()


class Offset(nn.Module):
    """theta + P z, where P (size, d) has the rows of one weight."""

    numbers = "subspace coordinates"

    def __init__(self, z: nn.Parameter) -> None:
        super().__init__()
        self.z = z

    def forward(self, theta: Tensor) -> Tensor:
        return theta + self.project(self.z).view(theta.shape)

    def project(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def hold(self, name: str, value: Tensor) -> None:
        """A tensor that moves with the module and is not saved."""
        self.register_buffer(name, value.to(self.z.device), persistent=False)


def projections(net: Net, z: nn.Parameter, kind: str) -> dict[str, Offset]:
    """A map for every covered weight, all of the same z."""
    sizes = {name: w.size for name, w in net.weights.items()}
    if kind == "sparse":
        return dict(zip(sizes, sparse(z, list(sizes.values()), net.seed), strict=True))
    if kind == "fastfood":
        return {
            name: Fastfood(z, size, made.fastfood(net.seed, i, size, net.total, len(z)))
            for i, (name, size) in enumerate(sizes.items())
        }
    parts = {
        name: Dense(z, size, net.seed, i, net.total * len(z) <= KEPT)
        for i, (name, size) in enumerate(sizes.items())
    }
    length = sum(part.squares() for part in parts.values()).sqrt()  # type: ignore[union-attr]
    for part in parts.values():
        part.length.copy_(length)
    return dict(parts)


class Dense(Offset):
    """Normal entries over the lengths of the columns. `kept` in memory, or made again in chunks of
    rows: forward and backward, so that no more than one chunk exists at a time."""

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
        """The squared lengths of the columns, as far as these rows make them (d)."""
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
                    preserve_rng_state=False,
                )
                for i in range(0, self.size, self.step)
            ]
        )


class Sparse(Offset):
    """Few entries: P[rows, columns] = values."""

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
        # index_put_ adds in the same order every time, which index_add_ on a GPU does not
        return z.new_zeros(self.size).index_put(
            (self.rows,), z[self.columns] * self.values, accumulate=True
        )


def sparse(z: nn.Parameter, sizes: Sequence[int], seed: int) -> list[Sparse]:
    d, total = len(z), sum(sizes)
    if (entries := round(math.sqrt(total)) * d) > KEPT:
        raise UserError(
            f"a sparse projection of {d} numbers to {total} has {entries} entries, too many to hold. "
            "Choose method.projection=fastfood"
        )
    rows, columns, values = map(torch.from_numpy, made.sparse(seed, total, d))
    values = values.to(z.dtype)
    parts, start = [], 0
    for size in sizes:
        here = ((rows >= start) & (rows < start + size)).nonzero().view(-1)
        parts.append(Sparse(z, size, rows[here] - start, columns[here], values[here]))
        start += size
    return parts


class Fastfood(Offset):
    """The first `size` rows of H G Pi H B / sqrt(D |G|^2), H the Hadamard matrix of a power of two
    that has room for z and for the weight, B random signs, Pi a permutation, G normal. D is the
    number of all weights, so that the parts of P together keep lengths."""

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
        """Sums of the two transforms and of their gradients, whatever computes them."""
        n = len(self.signs)
        return 4 * n * (n.bit_length() - 1)

    def project(self, z: Tensor) -> Tensor:
        block = (
            1 << (len(z) - 1).bit_length()
        )  # H of what is zero beyond a block repeats H of the block
        spread = hadamard(torch.nn.functional.pad(z, (0, block - len(z))) * self.signs[:block])
        spread = spread.repeat(len(self.signs) // block)
        return hadamard(spread.index_select(0, self.order) * self.gauss)[: self.size]


def hadamard(x: Tensor) -> Tensor:
    """The fast Walsh-Hadamard transform H x of x (n,), n a power of two, H of entries +-1: H_ab =
    H_a (x) H_b, so up to six bits of the index at a time are multiplied out and rotated to the
    front, until all are back in their place."""
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


# -- lines, curves and simplexes of nets --------------------
@dataclass(frozen=True)
class Subspace:
    """Train the corners of a line, curve or simplex of nets, in every step at a random point of it;
    keep its centre.

        w(a) = sum_i c_i(a) w_i;  loss + beta * mean over pairs of cos^2(w_i, w_j)
        simplex: c uniform on the simplex (points=2: a line);  curve: c = ((1-a)^2, 2a(1-a), a^2), a ~ U(0, 1)

    The random point is one for all layers, or with `layerwise` one for each. Corners are the
    initial weights and the same in other orders, which is as good as drawing them again. The paper
    takes the cosine of a random pair, and has biases and norms of every corner, too; here all
    points share them, and norms learn the statistics of the centre in one epoch of forward passes
    in the end. (So accuracies on the way are below those of the centre's own statistics.)

    Trains: all weights, as often as there are corners; stores: nothing: the centre is a dense net;
    needs: the dense weights and gradients of all corners.

    Wortsman, Horton, Guestrin, Farhadi, Rastegari, ICML 2021 (arXiv:2102.10472).
    """

    kind: Literal["simplex", "curve"]
    points: int
    beta: float
    layerwise: bool

    def __post_init__(self) -> None:
        require(self.points >= 2, "method.points", self.points, "2 (a line) or more")
        require(
            self.kind == "simplex" or self.points == 3,
            "method.points",
            self.points,
            "3 for a curve",
        )
        require(self.beta >= 0, "method.beta", self.beta, "0 or more")

    def run(self, net: Net, train: Train) -> None:
        orders = [
            net.thetas(),
            *(redrawn(net.thetas(), generator(net, f"corner {i}")) for i in range(1, self.points)),
        ]
        net.freeze(dict.fromkeys(net.weights))
        corners = {name: torch.stack([thetas[name] for thetas in orders]) for name in net.weights}
        centre = self.weights(torch.tensor(0.5))
        maps = {name: Corners(points, centre) for name, points in corners.items()}
        first = next(iter(maps))
        maps[first] = Penalised(corners[first], centre, self.beta, maps)
        net.embed(maps)
        self.move(net, maps, 0)
        for t in train.steps():
            self.move(net, maps, t + 1)
        net.fold()
        settle(net, train)

    def move(self, net: Net, maps: dict[str, Corners], t: int) -> None:
        """To the random point of step t."""
        draws, point = generator(net, f"point {t}"), None
        for corners in maps.values():
            if point is None or self.layerwise:
                point = self.draw(draws)
            corners.at.copy_(point)

    def draw(self, draws: torch.Generator) -> Tensor:
        uniform = torch.rand(self.points, generator=draws, dtype=torch.float64)
        if self.kind == "curve":
            return self.weights(uniform[0])
        exponential = -torch.log1p(-uniform)
        return exponential / exponential.sum()

    def weights(self, a: Tensor) -> Tensor:
        """c(a) of the curve; of the simplex, its centre."""
        return (
            torch.stack(((1 - a) ** 2, 2 * a * (1 - a), a**2))
            if self.kind == "curve"
            else torch.full((self.points,), 1 / self.points)
        )


class Corners(nn.Module):
    """sum_i c_i w_i: at the point `at` while training, at the `centre` else. theta itself is not
    used."""

    numbers = "weights of corners"
    at: Tensor
    centre: Tensor

    def __init__(self, points: Tensor, centre: Tensor) -> None:
        super().__init__()
        self.points = nn.Parameter(points)
        self.register_buffer("centre", centre.to(points, copy=True))
        self.register_buffer("at", centre.to(points, copy=True))

    def forward(self, theta: Tensor) -> Tensor:
        return torch.tensordot(self.at if self.training else self.centre, self.points, 1)


class Penalised(Corners):
    """The first weight's: it has the penalty of all, whose cosine is that of whole nets."""

    def __init__(
        self, points: Tensor, centre: Tensor, beta: float, others: Mapping[str, Corners]
    ) -> None:
        super().__init__(points, centre)
        self.beta = beta
        self.family = [self, *list(others.values())[1:]]  # in a list, they are not its parts

    def penalty(self, theta: Tensor) -> Tensor:
        gram = torch.stack(
            [corners.points.flatten(1) @ corners.points.flatten(1).T for corners in self.family]
        ).sum(0)
        cos2 = gram.square() / torch.outer(gram.diag(), gram.diag())
        i, j = torch.triu_indices(len(gram), len(gram), 1)
        return self.beta * cos2[i, j].mean()


def settle(net: Net, train: Train) -> None:
    """Let BatchNorm forget the statistics of other nets: the mean over the batches of one epoch
    takes their place."""
    norms = [
        m
        for m in net.model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
    with torch.no_grad(), net.live():
        for images, _ in (
            train.data.train_batches(train.recipe.batch_size, train.seed, 0) if norms else ()
        ):
            net.model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
