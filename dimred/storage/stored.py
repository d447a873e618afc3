"""What of a tensor has to be stored.

A tensor equals its base except at some positions, whose values are stored. The base is zero
(pruning), the numbers that its seed draws (freezing), or a constant (a norm that never trained). Or
a tensor is a mask of its base times a constant, with or without signs (edge-popup); then no values
are stored at all.

All of these are exact: reading gives the same bits, up to the sign of zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dimred.net import Net
from dimred.net.projections import Displacement
from dimred.net.seeded import Draw
from dimred.storage.codes import Positions, Shape, bound

SAMPLE = 2**12  # entries that are compared first


class Moved(NamedTuple):
    """What a seed draws, moved by a projection of a few numbers (flat, double precision)."""

    draw: Draw
    by: np.ndarray

    def values(self, count: int) -> np.ndarray:
        """The first `count` numbers, float32."""
        return (self.draw.values(count) + self.by[:count]).astype(np.float32)


Base = Draw | Moved | float


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """What of one tensor has to be stored.

    base: the value of all other entries: a constant, or the draw that gives them.
    scale: None, or the constant of a mask: entries are `scale` times the base (or times its signs)
    at the positions, and 0 elsewhere.
    positions: sorted, flat; None for all of them.
    values: the entries at the positions; of a mask, which of them have the opposite sign (bool),
    empty if none has."""

    shape: Shape
    base: Base
    values: np.ndarray
    positions: Positions | None = None
    scale: float | None = None
    signs: bool = False
    dtype: np.dtype = field(default_factory=lambda: np.dtype("<f4"))

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def count(self) -> int:
        return self.size if self.positions is None else len(self.positions)

    def tensor(self) -> np.ndarray:
        """The whole tensor."""
        if self.positions is None:
            return self.values.astype(self.dtype).reshape(self.shape)
        if isinstance(self.base, (Draw, Moved)):
            out = self.base.values(self.size)
        else:
            out = np.full(self.size, self.base, self.dtype)
        if self.scale is None:
            out[self.positions] = self.values
            return out.reshape(self.shape)
        kept = scaled(out[self.positions], self.scale, self.signs)
        if len(self.values):
            kept = np.where(self.values, -kept, kept)
        out = np.zeros(self.size, self.dtype)
        out[self.positions] = kept
        return out.reshape(self.shape)


def scaled(base: np.ndarray, scale: float, signs: bool) -> np.ndarray:
    return np.float32(scale) * (np.sign(base) if signs else base)


def cost(stored: StoredTensor) -> float:
    """About how many bytes a stored tensor takes in the best code."""
    values = float(stored.values.nbytes)
    if stored.scale is not None:  # signs, a bit each
        values = (len(stored.values) + 7) / 8
    return bound(stored.count, stored.size) + values


def fits_half(values: np.ndarray) -> bool:
    """Whether no finite number overflows in half precision, as those from 65520 on do."""
    return values.dtype.kind != "f" or not bool(
        (np.isfinite(values) & (np.abs(values) >= 65520)).any()
    )


def pruned(value: np.ndarray) -> StoredTensor:
    """A tensor as its nonzero entries."""
    return changed(value, 0.0, np.zeros(1, value.dtype))


def changed(value: np.ndarray, base: Base, read: np.ndarray) -> StoredTensor:
    """A tensor as its entries that differ from those of the base."""
    flat = value.reshape(-1)
    positions = np.flatnonzero(flat != read)
    if len(positions) == flat.size:
        return StoredTensor(value.shape, 0.0, flat, dtype=value.dtype)
    return StoredTensor(value.shape, base, flat[positions], positions, dtype=value.dtype)


def masked(value: np.ndarray, draw: Draw | Moved, read: np.ndarray) -> StoredTensor | None:
    """A tensor as a mask of +-`scale` times the drawn numbers, or times their signs; None if it is
    no such mask."""
    flat = value.reshape(-1)
    positions = np.flatnonzero(flat)
    kept, base = flat[positions], read[positions]
    if not len(positions) or not base.all():
        return None
    flips = (kept < 0) != (base < 0)
    if not flips.any():
        flips = flips[:0]
    first = int(np.abs(base).argmax())
    for signs, near in ((False, abs(kept[first] / base[first])), (True, abs(kept[first]))):
        # kept was rounded, so the quotient may be a neighbour of the scale
        neighbours = (np.nextafter(near, np.float32(end)) for end in (0, np.inf))
        for scale in map(float, (near, *neighbours)):
            if (np.abs(kept) == np.abs(scaled(base, scale, signs))).all():
                return StoredTensor(value.shape, draw, flips, positions, scale, signs)
    return None


def from_seed(value: np.ndarray, draw: Draw | Moved | None, plain: StoredTensor) -> StoredTensor:
    """A tensor in the smallest of three forms: relative to zero (`plain`), to a constant, or to the
    numbers that its seed draws."""
    flat, candidates = value.reshape(-1), [plain]
    if flat.size and (flat == flat[0]).all():
        candidates.append(changed(value, flat[0].item(), flat[:1]))
    elif draw and value.dtype == np.float32:
        # Drawing all numbers takes long: a sample shows whether any of them are in the tensor.
        read = draw.values(min(flat.size, SAMPLE))
        mask = not flat[:SAMPLE].any() or masked(flat[:SAMPLE], draw, read)
        if mask or (flat[:SAMPLE] == read).any():
            read = draw.values(flat.size)
            candidates.append(changed(value, draw, read))
            if mask and (whole := masked(value, draw, read)):
                candidates.append(whole)
    return min(candidates, key=cost)


def initial_draws(net: Net) -> dict[str, Draw | Moved]:
    """The numbers that the seed draws for the parameters of a net, displaced where all weights are,
    by name; without those whose draw is not known."""
    draws: dict[str, Draw | Moved] = dict(net.draws)
    if displacement := displacement_of(net):
        by = displacement.of({name: w.size for name, w in net.weights.items()})
        draws |= {
            name: Moved(net.draws[name], by[name]) for name in net.weights if name in net.draws
        }
    return draws


def displacement_of(net: Net) -> Displacement | None:
    """The displacement of all weights of a net; None if there is none, or if weights are
    coefficients of a basis."""
    return None if net.bases else net.displacement


def tensors(net: Net) -> dict[str, np.ndarray]:
    """The parameters and buffers of the plain model; tied ones once, under their first name."""
    found: dict[int, tuple[str, Tensor]] = {}
    values = net.effective_weights()
    for name, tensor in net.model.state_dict().items():
        found.setdefault(tensor.data_ptr() or id(tensor), (name, values.get(name, tensor)))
    return {name: array(tensor) for name, tensor in found.values()}


def array(tensor: Tensor) -> np.ndarray:
    """A tensor as a little-endian array; bfloat16, which numpy lacks, becomes float32."""
    tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    value = tensor.detach().cpu().contiguous().numpy()
    return value.astype(value.dtype.newbyteorder("<"), copy=False)
