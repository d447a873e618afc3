"""How many bytes the final network takes, written in several forms: measured, from bytes that can
be read back.

    dense                           every number
    bitmap, csr, delta, entropy     the nonzero numbers, and their positions in that code
    bitmap_seed, ..., or seed       the same, but what the seed draws is not written: of FreezeNet the trained numbers,
                                    of a mask of untrained weights the mask alone, in a subspace z;
                                    `seed` if no position is left
    NAME_half                       numbers in half precision: nearly the same network

Norms, biases and running statistics count in all of them; shapes, names and the distributions that
weights are drawn
from do not: they belong to the model. A tensor is written densely wherever that takes fewer bytes.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from dimred.net import Net
from dimred.net.seeded import Draw
from dimred.storage.codes import CODES
from dimred.storage.parts import (
    Moved,
    Part,
    array,
    cost,
    displacement_of,
    drawn,
    fits_half,
    pruned,
    seeded,
    tensors,
)

__all__ = ["smallest", "storage"]


def storage(net: Net, seed: int) -> dict[str, int]:
    """Bytes of the net in every form that applies to it, of dimred's own seed. A few seconds for 25
    million weights."""
    whole = tensors(net)
    written = whole | coefficients(net)
    plain = {name: pruned(value) for name, value in written.items()}
    known, displacement = drawn(net), displacement_of(net)
    z = array(displacement.z).nbytes if displacement else 0
    of_seed = {name: seeded(value, known.get(name), plain[name]) for name, value in written.items()}
    from_plain = [Written(part) for part in plain.values()]
    shared = {id(each.part): each for each in from_plain}
    from_seed = [shared.get(id(part)) or Written(part) for part in of_seed.values()]
    seeds = any(isinstance(part.base, (Draw, Moved)) for part in of_seed.values())
    places = any(each.codes["bitmap"] for each in from_seed)

    sizes: dict[str, int] = {}
    for end, half in (
        ("", False),
        *([("_half", True)] if all(map(fits_half, whole.values())) else []),
    ):
        sizes[f"dense{end}"] = sum(
            number(value.dtype, half) * value.size for value in whole.values()
        )
        sizes |= {code + end: total(from_plain, code, half) for code in CODES}
        if seeds:
            sizes |= {
                f"{code}_seed{end}" if places else f"seed{end}": (4 if seed < 2**32 else 8)
                + z
                + total(from_seed, code, half)
                for code in CODES
            }
    return sizes


def smallest(sizes: dict[str, int]) -> int:
    """Of the exact forms."""
    return min(size for name, size in sizes.items() if not name.endswith("_half"))


class Written:
    """A part, and the bytes of its positions in every code; none if there are no positions to
    write."""

    def __init__(self, part: Part) -> None:
        self.part = part
        sparse = (
            part.positions is not None
            and part.count > 0
            and cost(part) < part.dtype.itemsize * part.size
        )
        self.codes = {
            name: len(encode(part.positions, part.shape)) if sparse else 0  # type: ignore[arg-type]
            for name, (encode, _) in CODES.items()
        }

    def size(self, code: str, half: bool) -> int:
        """Bytes, of the dense tensor if they are fewer."""
        part, one = self.part, number(self.part.dtype, half)
        if not self.codes[code] and part.count:
            return one * part.size
        numbers = (len(part.values) + 7) // 8 + one if part.scale is not None else one * part.count
        constant = one if isinstance(part.base, (int, float)) and part.base else 0
        return min(one * part.size, self.codes[code] + numbers + constant)


def total(parts: Collection[Written], code: str, half: bool) -> int:
    return sum(each.size(code, half) for each in parts)


def number(dtype: np.dtype, half: bool) -> int:
    """Bytes of one."""
    return 2 if half and dtype.kind == "f" else dtype.itemsize


def coefficients(net: Net) -> dict[str, np.ndarray]:
    """What weights that are written in a basis are made of: their coefficients, and the bases."""
    if not net.bases:
        return {}
    thetas = {name: array(theta) for name, theta in net.dense_weights().items()}
    return thetas | {
        f"basis {i}: {key}": array(value)
        for i, basis in enumerate(dict.fromkeys(net.bases.values()))
        for key, value in basis.state_dict().items()
    }
