"""Sizes: how many bytes the final network takes in several forms, measured on bytes that can be
read back.

    dense                          every number
    bitmap, csr, delta, entropy    the nonzero numbers, and their positions in that code
    bitmap_seed, ..., or seed      the same without what the seed draws: of FreezeNet the trained
                                   numbers, of a mask of untrained weights the mask alone, in a
                                   subspace z; `seed` if no positions are left
    NAME_half                      numbers in half precision: nearly the same network

Norms, biases and running statistics count in all of them; shapes, names and the distributions that
weights are drawn from do not: they belong to the model. A tensor is stored densely wherever that
takes fewer bytes.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from dimred.net import Net
from dimred.net.seeded import Draw
from dimred.storage.codes import CODES
from dimred.storage.deltas import (
    Delta,
    Moved,
    array,
    cost,
    displacement_of,
    fits_half,
    from_seed,
    initial_draws,
    pruned,
    tensors,
)

__all__ = ["smallest", "storage"]


def storage(net: Net, seed: int) -> dict[str, int]:
    """Bytes of a net in every form that applies to it, for a seed of dimred. Takes a few seconds
    for 25 million weights."""
    whole = tensors(net)
    stored = whole | coefficients(net)
    draws = initial_draws(net)
    from_zero = {name: pruned(value) for name, value in stored.items()}
    smallest_deltas = [
        from_seed(value, draws.get(name), from_zero[name]) for name, value in stored.items()
    ]
    plain = [Encoded(delta) for delta in from_zero.values()]
    # a delta that is the same in both forms is encoded once
    known = {id(each.delta): each for each in plain}
    seeded = [known.get(id(delta)) or Encoded(delta) for delta in smallest_deltas]
    has_draws = any(isinstance(delta.base, (Draw, Moved)) for delta in smallest_deltas)
    has_positions = any(each.codes["bitmap"] for each in seeded)

    sizes: dict[str, int] = {}
    precisions = {"": False}
    if all(map(fits_half, whole.values())):
        precisions["_half"] = True
    for end, half in precisions.items():
        sizes[f"dense{end}"] = sum(
            item_bytes(value.dtype, half) * value.size for value in whole.values()
        )
        for code in CODES:
            sizes[code + end] = total(plain, code, half)
        for code in CODES if has_draws else ():
            name = f"{code}_seed{end}" if has_positions else f"seed{end}"
            sizes[name] = seed_bytes(net, seed) + total(seeded, code, half)
    return sizes


def seed_bytes(net: Net, seed: int) -> int:
    """Bytes of the seed and, in a subspace, of z."""
    displacement = displacement_of(net)
    z = array(displacement.z).nbytes if displacement else 0
    return (4 if seed < 2**32 else 8) + z


def smallest(sizes: dict[str, int]) -> int:
    """The bytes of the smallest exact form."""
    return min(size for name, size in sizes.items() if not name.endswith("_half"))


class Encoded:
    """A delta, and how many bytes its positions take in every code: 0 if it has none to store."""

    def __init__(self, delta: Delta) -> None:
        self.delta = delta
        sparse = (
            delta.positions is not None
            and delta.count > 0
            and cost(delta) < delta.dtype.itemsize * delta.size
        )
        self.codes = {
            name: len(encode(delta.positions, delta.shape)) if sparse else 0  # type: ignore[arg-type]
            for name, (encode, _) in CODES.items()
        }

    def size(self, code: str, half: bool) -> int:
        """Bytes in a code, or of the dense tensor where that is smaller."""
        delta, one = self.delta, item_bytes(self.delta.dtype, half)
        if not self.codes[code] and delta.count:
            return one * delta.size
        numbers = (
            (len(delta.values) + 7) // 8 + one if delta.scale is not None else one * delta.count
        )
        constant = one if isinstance(delta.base, (int, float)) and delta.base else 0
        return min(one * delta.size, self.codes[code] + numbers + constant)


def total(deltas: Collection[Encoded], code: str, half: bool) -> int:
    return sum(each.size(code, half) for each in deltas)


def item_bytes(dtype: np.dtype, half: bool) -> int:
    """Bytes of one number."""
    return 2 if half and dtype.kind == "f" else dtype.itemsize


def coefficients(net: Net) -> dict[str, np.ndarray]:
    """The coefficients and the bases of weights that are written in a basis."""
    if not net.bases:
        return {}
    thetas = {name: array(theta) for name, theta in net.dense_weights().items()}
    return thetas | {
        f"basis {i}: {key}": array(value)
        for i, basis in enumerate(dict.fromkeys(net.bases.values()))
        for key, value in basis.state_dict().items()
    }
