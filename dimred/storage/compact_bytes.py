"""The compact file: a trained network as its seed, the numbers that differ from what the seed
draws, and their positions.

    magic            8 bytes          \\x93dimred\\n; docs/storage.md has the layout to the byte
    version          2 bytes          little-endian, as all that follows
    length           4 bytes          of the header
    header           JSON, by zlib    the model, and for every tensor its base and code
    bytes            ...              of the tensors: positions, then values
    checksum         16 bytes         BLAKE2b of everything before

A frozen entry is drawn from the seed again (stored.py); where it is not known how it was drawn, as
of a model whose builder has its own generator, its value is stored.

Reading a file runs no code from it and opens no path in it: its model is one of dimred's own,
unless the user trusts the file."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dimred.errors import UserError, counted
from dimred.files import Json
from dimred.net import Net
from dimred.net.projections import Displacement
from dimred.net.seeded import Draw
from dimred.net.state import unsaved
from dimred.storage.codes import CODES, pack, unpack
from dimred.storage.stored import (
    Base,
    Moved,
    StoredTensor,
    array,
    displacement_of,
    fits_half,
    from_seed,
    initial_draws,
    pruned,
    tensors,
)

MAGIC, VERSION, START = b"\x93dimred\n", 1, struct.Struct("<8sHI")
CHECKSUM = 16
LONGEST = 2**26  # bytes of a header
IN_FILES = ("bitmap", "delta")  # codes that need no other package to be read
#: what a tensor's line leaves out
USUAL: Json = {"dtype": "<f4", "base": 0.0, "count": 0, "code": None, "scale": None, "signs": False}


def encode(net: Net, about: Json, buffers: Mapping[str, np.ndarray], half: bool = False) -> bytes:
    """A net as the content of a compact file.

    about: "model", its configuration, and "shape" and "classes" of the images.
    buffers: those outside the state dict that have changed since the builder made them.
    """
    known, lines, chunks, digest = initial_draws(net), [], [], hashlib.blake2b(digest_size=CHECKSUM)
    moves: Json = {"subspace": None}
    if displacement := displacement_of(net):
        moves = {"subspace": displacement.header(net.weights)}
        chunks.append(array(displacement.z).astype("<f4").tobytes())
    for name, value in {**tensors(net), **buffers}.items():
        stored = from_seed(value, known.get(name), pruned(value))
        line, written = write_stored(stored, half)
        by = stored.base.by if isinstance(stored.base, Moved) else None
        # of what a reader will get, half precision included
        digest.update(read_stored(line, written, half, by).tensor().tobytes())
        lines.append({"name": name} | line)
        chunks.append(written)
    # in this order, as the length of the compressed header depends on it
    said = {key: about[key] for key in ("model", "shape", "classes")}
    header = {
        **said,
        "seed": net.seed,
        **moves,
        "half": half,
        "content": digest.hexdigest(),
        "tensors": lines,
        "dimred": importlib.metadata.version("dimred"),
    }
    packed = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)
    whole = START.pack(MAGIC, VERSION, len(packed)) + packed + b"".join(chunks)
    return whole + checksum(whole)


def opened(content: bytes, path: Path) -> tuple[bytes, bytes]:
    """The packed header, and the bytes of the tensors. UserError if it is another kind of file,
    newer, or damaged."""
    if content[: len(MAGIC)] != MAGIC:
        raise UserError(
            f"{path} is no compact file of dimred. dimred export RUN FILE --format compact writes "
            "one"
        )
    if len(content) < START.size + CHECKSUM:
        raise damaged_compact_file(path)
    # in every version the checksum is at the end, and the start has 14 bytes
    if checksum(content[:-CHECKSUM]) != content[-CHECKSUM:]:
        raise damaged_compact_file(path)
    _, version, length = START.unpack_from(content)
    if version > VERSION:
        raise UserError(
            f"{path} has version {version} of the compact format, and this dimred reads up to "
            f"{VERSION}. Update dimred"
        )
    end = START.size + length
    return content[START.size : end], content[end:-CHECKSUM]


def unpacked(header: bytes) -> Json:
    """The header as JSON. ValueError, LookupError or TypeError if `encode` has not written it."""
    return json.loads(zlib.decompressobj().decompress(header, LONGEST))


def damaged_compact_file(path: Path) -> UserError:
    return UserError(
        f"{path} is damaged: its checksum does not match its content. Copy or export it again"
    )


def checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=CHECKSUM).digest()


@torch.no_grad()
def fill(model: nn.Module, header: Json, payload: bytes) -> None:
    """Fill a model with the tensors of a file."""
    state, digest = model.state_dict(), hashlib.blake2b(digest_size=CHECKSUM)
    at, filled = 0, set[int]()
    every = state | unsaved(model)
    moves: dict[str, np.ndarray] = {}
    if space := header["subspace"]:
        at, sizes = 4 * space["dim"], {name: state[name].numel() for name in space["weights"]}
        moves |= Displacement.read(space, np.frombuffer(payload[:at], "<f4")).of(sizes)
    for line in header["tensors"]:
        tensor = every[line["name"]]
        if list(tensor.shape) != line["shape"]:
            raise ValueError(
                f"{line['name']} is {line['shape']} there and {list(tensor.shape)} here"
            )
        end = at + sum(line["bytes"])
        by = moves.get(line["name"])
        value = read_stored(line, payload[at:end], header["half"], by).tensor()
        at = end
        digest.update(value.tobytes())
        tensor.copy_(torch.from_numpy(value.astype(value.dtype.newbyteorder("="), copy=False)))
        filled.add(tensor.data_ptr())
    # by memory: a tied weight has several names and one line
    for name, tensor in state.items():
        if tensor.numel() and tensor.data_ptr() not in filled:
            raise ValueError(f"it has no {name}")
    # a draw depends on the machine's arithmetic, so the result is compared with the writer's
    if digest.hexdigest() != header["content"]:
        raise ValueError(
            "what its seed draws on this machine is not what it drew where it was written"
        )


def write_stored(stored: StoredTensor, half: bool) -> tuple[Json, bytes]:
    """The line of a tensor in the header, and the bytes of its positions and values. Those of a
    mask are bits: which entries have the opposite sign."""
    code, positions = None, b""
    if stored.positions is not None and stored.count:
        written = {name: CODES[name][0](stored.positions, stored.shape) for name in IN_FILES}
        code = min(written, key=lambda name: len(written[name]))
        positions = written[code]
    number = dtype_in_file(stored.dtype, half)
    if half and not fits_half(stored.values):
        raise UserError(
            f"{np.abs(stored.values).max():g} is too large for half precision. Leave out --half"
        )
    if stored.scale is None:
        values = stored.values.astype(number).tobytes()
    else:
        values = pack(stored.values)
    if len(positions) + len(values) > stored.size * number.itemsize:
        # all numbers are shorter than some with their positions
        dense = stored.tensor().reshape(-1)
        return write_stored(StoredTensor(stored.shape, 0.0, dense, dtype=stored.dtype), half)
    base: Json | float
    if isinstance(stored.base, Moved):
        base = stored.base.draw._asdict() | {"moved": True}
    elif isinstance(stored.base, Draw):
        base = stored.base._asdict()
    else:
        base = stored.base
    line = {
        "shape": list(stored.shape),
        "dtype": stored.dtype.str,
        "base": base,
        "count": stored.count,
        "code": code,
        "scale": stored.scale,
        "signs": stored.signs,
        "bytes": [len(positions), len(values)],
    }
    unusual = {key: entry for key, entry in line.items() if entry != USUAL.get(key, ...)}
    return unusual, positions + values


def read_stored(
    line: Json, content: bytes, half: bool, by: np.ndarray | None = None
) -> StoredTensor:
    """What `write_stored` wrote; `by` is what z moves it by. ValueError and its like if it cannot
    have written this."""
    line = USUAL | line
    shape, dtype, count = tuple(line["shape"]), np.dtype(line["dtype"]), line["count"]
    size, (end, _) = math.prod(shape), line["bytes"]
    positions = None
    if count < size or line["code"]:
        positions = np.zeros(0, np.int64)
    if line["code"]:
        if line["code"] not in IN_FILES:
            raise ValueError(f"there is no code {line['code']}")
        positions = CODES[line["code"]][1](content[:end], count, shape)
    if line["scale"] is None:
        values = np.frombuffer(content[end:], dtype_in_file(dtype, half))
        found = len(values)
    else:  # signs, or none if no entry of the mask has the opposite one
        values = unpack(content[end:], count if content[end:] else 0)
        found = len(values) or count
    # the file is not trusted: what it says must fit together before it is used
    if found != count or (positions is not None and len(positions) != count):
        raise ValueError(
            f"a tensor of {counted(size, 'entry')} does not have the "
            f"{counted(count, 'value')} that it should"
        )
    base: Base = line["base"]
    if isinstance(line["base"], dict):
        draw = Draw(*(line["base"][field] for field in Draw._fields))
        base = Moved(draw, by) if line["base"].get("moved") and by is not None else draw
    return StoredTensor(shape, base, values, positions, line["scale"], line["signs"], dtype)


def dtype_in_file(dtype: np.dtype, half: bool) -> np.dtype:
    """The type of numbers in a file."""
    return np.dtype("<f2") if half and dtype.kind == "f" else dtype
