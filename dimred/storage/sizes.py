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
from dimred.storage.stored import (
    Moved,
    StoredTensor,
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
    arrays = whole | coefficients(net)
    draws = initial_draws(net)
    from_zero = {name: pruned(value) for name, value in arrays.items()}
    plain = {id(stored): Encoded(stored) for stored in from_zero.values()}
    seeded = []
    for name, value in arrays.items():
        stored = from_seed(value, draws.get(name), from_zero[name])
        # encoding takes longest: what is smallest relative to zero is not encoded again
        seeded.append(plain.get(id(stored)) or Encoded(stored))
    has_draws = any(isinstance(each.stored.base, (Draw, Moved)) for each in seeded)
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
            sizes[code + end] = total(plain.values(), code, half)
        for code in CODES if has_draws else ():
            # without positions to encode, all codes take the same bytes
            name = f"{code}_seed" if has_positions else "seed"
            sizes[name + end] = seed_bytes(net, seed) + total(seeded, code, half)
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
    """A stored tensor, and how many bytes its positions take in every code: 0 if it has none to
    store."""

    def __init__(self, stored: StoredTensor) -> None:
        self.stored = stored
        self.codes = dict.fromkeys(CODES, 0)
        if stored.positions is None or not stored.count:
            return
        # where even the bound is no shorter than the dense tensor, no code is tried
        if cost(stored) < stored.dtype.itemsize * stored.size:
            for name, (encode, _) in CODES.items():
                self.codes[name] = len(encode(stored.positions, stored.shape))

    def size(self, code: str, half: bool) -> int:
        """Bytes in a code, or of the dense tensor where that is smaller."""
        stored, one = self.stored, item_bytes(self.stored.dtype, half)
        if not self.codes[code] and stored.count:
            return one * stored.size
        numbers = one * stored.count
        if stored.scale is not None:  # a mask: signs, a bit each, and the scale
            numbers = (len(stored.values) + 7) // 8 + one
        if isinstance(stored.base, (int, float)) and stored.base:
            numbers += one  # the constant
        return min(one * stored.size, self.codes[code] + numbers)


def total(tensors: Collection[Encoded], code: str, half: bool) -> int:
    return sum(each.size(code, half) for each in tensors)


def item_bytes(dtype: np.dtype, half: bool) -> int:
    """Bytes of one number."""
    return 2 if half and dtype.kind == "f" else dtype.itemsize


def coefficients(net: Net) -> dict[str, np.ndarray]:
    """The coefficients and the bases of weights that are written in a basis."""
    if not net.bases:
        return {}
    out = {name: array(theta) for name, theta in net.dense_weights().items()}
    # several weights may share a basis, which is stored once
    for i, basis in enumerate(dict.fromkeys(net.bases.values())):
        for key, value in basis.state_dict().items():
            out[f"basis {i}: {key}"] = array(value)
    return out
