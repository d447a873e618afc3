"""Random projections P from d numbers z to all weights, the same on every machine: theta = theta_0
+ P z.

The entries of P are drawn by seeded.py. `project` adds P z up in double precision and in a fixed
order, so that a file needs to hold no more of a weight than z and the seed. The method
(methods/subspaces/intrinsic_dimension.py) has the same P as transforms, for training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from dimred.net.seeded import F64, Draw, centred, normal

if TYPE_CHECKING:
    from dimred.net import Net

Kind = Literal["dense", "sparse", "fastfood"]
BLOCK = 2**22  # entries of a dense projection that are drawn at once; another number, other draws
FIRST = 2**32  # the first stream: earlier ones draw the model's weights
EACH = 2**20  # streams for each weight


@dataclass(frozen=True)
class Displacement:
    """P z, by which all weights have moved from their initial values: the numbers z (d), and the
    kind and the seed of P."""

    kind: Kind
    seed: int
    z: Tensor

    @property
    def dim(self) -> int:
        return self.z.numel()

    def of(self, sizes: Mapping[str, int]) -> dict[str, F64]:
        """What moves each weight, flat; sizes are those of all covered weights, in order."""
        return project(self.kind, self.seed, sizes, self.z.double().cpu().numpy())

    def header(self, names: Iterable[str]) -> dict[str, Any]:
        """What a file says of it besides z; `names` are those of the weights, in order."""
        return {"kind": self.kind, "seed": self.seed, "dim": self.dim, "weights": list(names)}

    @classmethod
    def read(cls, header: Mapping[str, Any], z: np.ndarray) -> Displacement:
        return cls(header["kind"], header["seed"], torch.from_numpy(z.astype(np.float32)))


def words(seed: int, stream: int, count: int) -> np.ndarray:
    return np.random.Philox(key=[seed, FIRST + stream]).random_raw(count)


def signs(seed: int, stream: int, count: int) -> F64:
    """+-1, by the highest bit of each word."""
    return 1.0 - 2.0 * (words(seed, stream, count) >> np.uint64(63)).astype(np.float64)


@torch.no_grad()
def displace(net: Net, displacement: Displacement) -> None:
    """Hold all weights at their present value plus a displacement, which can be made again from its
    few numbers. It takes the place of all transforms."""
    moves = displacement.of({name: w.size for name, w in net.weights.items()})
    net.remove_transforms()
    for name, w in net.weights.items():
        by = torch.from_numpy(moves[name]).to(w.param.device)
        nothing = torch.empty(0, dtype=torch.int64, device=w.param.device)
        net.move(name, w.dense().double() + by, nothing, "held")
    net.displacement = displacement
    net.supports_changed()


# -- the entries of P --------------------
def rows_of(seed: int, index: int, size: int, d: int, start: int) -> np.ndarray:
    """N(0, 1): the block of rows (rows, d), float32, of the dense P that begins at row `start` of
    weight `index`."""
    step = max(1, BLOCK // d)
    rows = min(step, size - start)
    return (
        Draw(seed, FIRST + index * EACH + start // step, "normal", 0.0, 1.0)
        .values(rows * d)
        .reshape(rows, d)
    )


def sparse(seed: int, total: int, d: int) -> tuple[np.ndarray, np.ndarray, F64]:
    """Rows, columns and values of P: each column has one entry +-1/sqrt(n) in each of n =
    round(sqrt D) equal stretches of D, all different."""
    n = max(1, round(math.sqrt(total)))
    u = centred(words(seed, 0, d * n)).reshape(d, n) + 0.5
    rows = np.minimum(((np.arange(n) + u) * (total / n)).astype(np.int64), total - 1).reshape(-1)
    return rows, np.repeat(np.arange(d), n), signs(seed, 1, d * n) / math.sqrt(n)


def fastfood(seed: int, index: int, size: int, total: int, d: int) -> tuple[F64, np.ndarray, F64]:
    """B, Pi and G / (sqrt D |G|) of H G Pi H B, for the power of two that has room for z and for
    the weight."""
    room, first = 1 << (max(size, d) - 1).bit_length(), index * EACH
    gauss = normal(centred(words(seed, first + 2, room)))
    length = math.sqrt(math.fsum((gauss * gauss).tolist()))
    order = np.argsort(words(seed, first + 1, room), kind="stable")
    return signs(seed, first, room), order, gauss / (length * math.sqrt(total))


# -- P z --------------------
def project(kind: Kind, seed: int, sizes: Mapping[str, int], z: np.ndarray) -> dict[str, F64]:
    """P z for every weight, flat."""
    z, total = z.astype(np.float64), sum(sizes.values())
    if kind == "fastfood":
        out = {}
        for i, (name, size) in enumerate(sizes.items()):
            out[name] = by_fastfood(z, size, fastfood(seed, i, size, total, len(z)))
        return out
    if kind == "sparse":
        rows, columns, values = sparse(seed, total, len(z))
        moved = np.zeros(total)
        np.add.at(moved, rows, z[columns] * values)  # one after the other
        ends = np.cumsum(list(sizes.values()))
        return dict(zip(sizes, np.split(moved, ends[:-1]), strict=True))
    return by_gauss(seed, sizes, z)


def by_gauss(seed: int, sizes: Mapping[str, int], z: F64) -> dict[str, F64]:
    """P z of the dense P, which is too large for memory: its rows are drawn in blocks, twice."""
    rows = max(1, BLOCK // len(z))
    blocks: dict[str, list[Callable[[], np.ndarray]]] = {}
    for i, (name, size) in enumerate(sizes.items()):
        starts = range(0, size, rows)
        blocks[name] = [partial(rows_of, seed, i, size, len(z), start) for start in starts]
    # The columns of P have length 1. Dividing z by their lengths is the same.
    lengths = np.zeros(len(z))
    for block in chain.from_iterable(blocks.values()):
        lengths = lengths + squares(block())
    z = z / np.sqrt(lengths)
    return {name: np.concatenate([by_rows(b(), z) for b in each]) for name, each in blocks.items()}


def squares(block: np.ndarray) -> F64:
    """The squared lengths of the columns of a block (rows, d), added row by row."""
    return np.add.reduce(block.astype(np.float64) ** 2, axis=0)


def by_rows(block: np.ndarray, z: F64) -> F64:
    out = np.zeros(len(block))
    for column, each in zip(block.T, z, strict=True):
        out += column.astype(np.float64) * each
    return out


def by_fastfood(z: F64, size: int, made_of: tuple[F64, np.ndarray, F64]) -> F64:
    flips, order, gauss = made_of
    x = np.zeros(len(flips))
    x[: len(z)] = z
    return hadamard(hadamard(x * flips)[order] * gauss)[:size]


def hadamard(x: F64) -> F64:
    """The Walsh-Hadamard transform H x, by sums and differences of halves."""
    half = 1
    while half < len(x):
        a, b = np.moveaxis(x.reshape(-1, 2, half), 1, 0)
        x, half = np.stack((a + b, a - b), 1).reshape(-1), 2 * half
    return x
