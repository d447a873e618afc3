"""A network in a file that holds only what cannot be made again: trained numbers, their positions,
and a seed.

    magic            8 bytes          \\x93dimred\\n; docs/storage.md has the layout to the byte
    version          2 bytes          little-endian, as all that follows
    length           4 bytes          of the header
    header           JSON, by zlib    the model, and a line for every tensor: its base, and how it is written
    bytes            ...              of the tensors: positions, then values
    checksum         16 bytes         BLAKE2b of all before

A file runs no code and no path in it is read: its model is one of dimred's own, unless it is
trusted."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dimred.build import build_model, require_own, written_by
from dimred.draws import Draw
from dimred.errors import UserError
from dimred.net import Net
from dimred.projections import moved
from dimred.record import Json, write
from dimred.state import unsaved
from dimred.storage.codes import CODES, pack, unpack
from dimred.storage.parts import (
    Base,
    Moved,
    Part,
    array,
    drawn,
    fits_half,
    pruned,
    seeded,
    subspaces,
    tensors,
)

MAGIC, VERSION, START = b"\x93dimred\n", 1, struct.Struct("<8sHI")
CHECKSUM = 16
LONGEST = 2**26  # bytes of a header
AGAIN = "export it again"
IN_FILES = ("bitmap", "delta")  # codes that this file alone is enough to read
#: what a tensor's line does not say
USUAL: Json = {"dtype": "<f4", "base": 0.0, "count": 0, "code": None, "scale": None, "signs": False}


def save_compact(path: Path, net: Net, about: Json, half: bool = False) -> int:
    """Write a net to a file; the bytes of it. UserError if it cannot be made again from it, to the
    bit.

    about: "model", its configuration, and "shape" and "classes" of the images: what `load_run`
    tells.
    half: write numbers in half precision, for nearly the same logits.
    """
    content = encode(net, about, half)
    images = torch.rand(2, *about["shape"], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.train(False)
        logits, again = net(images), decode(content, path, trust=True)(images)
    # the tensors are the same to the bit, which `decode` has checked; kernels may round differently
    # where they lie elsewhere in memory
    if not half and not torch.allclose(logits, again, rtol=1e-4, atol=1e-5):
        raise UserError(
            f"{type(net.model).__name__} computes something else when it is made again from its tensors "
            "and its configuration. Export it with --format dense"
        )
    write(path, content)
    return len(content)


def load_compact(path: Path | str, trust: bool = False) -> nn.Module:
    """The network of a compact file, on the CPU, in evaluation mode. UserError if the file is
    damaged, of a newer version, or asks for code that is not dimred's and is not trusted."""
    try:
        content = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}). Name a file that dimred export --format compact "
            "wrote"
        ) from None
    return decode(content, Path(path), trust)


# -- a net as bytes --------------------
def encode(net: Net, about: Json, half: bool = False) -> bytes:
    known, lines, chunks, digest = drawn(net), [], [], hashlib.blake2b(digest_size=CHECKSUM)
    moves: Json = {"subspace": None}
    for kind, z in subspaces(net).items():
        moves = {
            "subspace": {
                "kind": kind,
                "seed": net.seed,
                "dim": z.size,
                "weights": list(net.weights),
            }
        }
        chunks.append(z.astype("<f4").tobytes())
    for name, value in (tensors(net) | changed_buffers(net, about)).items():
        part = seeded(value, known.get(name), pruned(value))
        line, written = write_part(part, half)
        by = part.base.by if isinstance(part.base, Moved) else None
        digest.update(read_part(line, written, half, by).tensor().tobytes())
        lines.append({"name": name} | line)
        chunks.append(written)
    said = {
        key: about[key] for key in ("model", "shape", "classes")
    }  # in this order, as its length depends on it
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


def changed_buffers(net: Net, about: Json) -> dict[str, np.ndarray]:
    """The buffers beyond the state dict whose values have changed since the builder made them. A
    buffer of another shape is a cache, which the model fills again."""
    own = unsaved(net.model)
    if not own:
        return {}
    built = unsaved(build_model(about["model"], tuple(about["shape"]), about["classes"], net.seed))
    same_shape = [name for name in own if name in built and own[name].shape == built[name].shape]
    return {
        name: array(own[name])
        for name in same_shape
        if not torch.equal(own[name].cpu(), built[name])
    }


def decode(content: bytes, path: Path, trust: bool = False) -> nn.Module:
    length = opened(content, path)
    with written_by(path, None, AGAIN):
        header = json.loads(
            zlib.decompressobj().decompress(content[START.size : START.size + length], LONGEST)
        )
        writer, model = str(header["dimred"]), header["model"]
    require_own(path, model, trust)
    with written_by(path, writer, AGAIN):
        built = build_model(model, tuple(header["shape"]), header["classes"], header.get("seed", 0))
        fill(built, header, content[START.size + length : -CHECKSUM])
    return built.eval()


def opened(content: bytes, path: Path) -> int:
    """The length of the header. UserError if it is another kind of file, newer, or damaged."""
    if content[: len(MAGIC)] != MAGIC:
        raise UserError(
            f"{path} is no compact file of dimred. dimred export RUN FILE --format compact writes one"
        )
    if len(content) < START.size + CHECKSUM:
        raise damaged(path)
    if (
        checksum(content[:-CHECKSUM]) != content[-CHECKSUM:]
    ):  # in every version, as the 14 bytes of the start
        raise damaged(path)
    _, version, length = START.unpack_from(content)
    if version > VERSION:
        raise UserError(
            f"{path} has version {version} of the compact format, and this dimred reads up to {VERSION}. "
            "Update dimred"
        )
    return length


def damaged(path: Path) -> UserError:
    return UserError(
        f"{path} is damaged: its checksum does not match its content. Copy or export it again"
    )


def checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=CHECKSUM).digest()


@torch.no_grad()
def fill(model: nn.Module, header: Json, payload: bytes) -> None:
    """Let the tensors of a model be those of the file."""
    state, digest, at, filled = (
        model.state_dict(),
        hashlib.blake2b(digest_size=CHECKSUM),
        0,
        set[int](),
    )
    every = state | unsaved(model)
    moves: dict[str, np.ndarray] = {}
    if space := header["subspace"]:
        at, sizes = 4 * space["dim"], {name: state[name].numel() for name in space["weights"]}
        moves |= moved(space["kind"], space["seed"], sizes, np.frombuffer(payload[:at], "<f4"))
    for line in header["tensors"]:
        tensor = every[line["name"]]
        if list(tensor.shape) != line["shape"]:
            raise ValueError(
                f"{line['name']} is {line['shape']} there and {list(tensor.shape)} here"
            )
        end = at + sum(line["bytes"])
        value, at = (
            read_part(line, payload[at:end], header["half"], moves.get(line["name"])).tensor(),
            end,
        )
        digest.update(value.tobytes())
        tensor.copy_(torch.from_numpy(value.astype(value.dtype.newbyteorder("="), copy=False)))
        filled.add(tensor.data_ptr())
    if missing := [
        name for name, tensor in state.items() if tensor.numel() and tensor.data_ptr() not in filled
    ]:
        raise ValueError(f"it has no {missing[0]}")
    if digest.hexdigest() != header["content"]:
        raise ValueError(
            "what its seed draws on this machine is not what it drew where it was written"
        )


# -- a tensor as bytes --------------------
def write_part(part: Part, half: bool) -> tuple[Json, bytes]:
    """Its line, and its positions and values. A mask's values are bits: which entries have the
    other sign."""
    code, positions = None, b""
    if part.positions is not None and part.count:
        code, positions = min(
            ((name, CODES[name][0](part.positions, part.shape)) for name in IN_FILES),
            key=lambda written: len(written[1]),
        )
    number = kind(part.dtype, half)
    if half and not fits_half(part.values):
        raise UserError(
            f"{np.abs(part.values).max():g} is too large for half precision. Leave out --half"
        )
    values = pack(part.values) if part.scale is not None else part.values.astype(number).tobytes()
    if len(positions) + len(values) > part.size * number.itemsize:
        return write_part(Part(part.shape, 0.0, part.tensor().reshape(-1), dtype=part.dtype), half)
    base: Json | float = (
        part.base
        if isinstance(part.base, (int, float))
        else part.base.draw._asdict() | {"moved": True}
        if isinstance(part.base, Moved)
        else part.base._asdict()
    )
    line = {
        "shape": list(part.shape),
        "dtype": part.dtype.str,
        "base": base,
        "count": part.count,
        "code": code,
        "scale": part.scale,
        "signs": part.signs,
        "bytes": [len(positions), len(values)],
    }
    return {
        key: entry for key, entry in line.items() if entry != USUAL.get(key, ...)
    }, positions + values


def read_part(line: Json, content: bytes, half: bool, by: np.ndarray | None = None) -> Part:
    """What `write_part` wrote; `by` is what z moves it by. ValueError and its like if it cannot
    have written this."""
    line = USUAL | line
    shape, dtype, count = tuple(line["shape"]), np.dtype(line["dtype"]), line["count"]
    size, (end, _) = math.prod(shape), line["bytes"]
    positions = np.zeros(0, np.int64) if count < size or line["code"] else None
    if line["code"]:
        if line["code"] not in IN_FILES:
            raise ValueError(f"there is no code {line['code']}")
        positions = CODES[line["code"]][1](content[:end], count, shape)
    values = np.frombuffer(content[end:], kind(dtype, half) if line["scale"] is None else np.uint8)
    if line["scale"] is not None and len(values):
        values = unpack(content[end:], count)
    found = {len(values) or count if line["scale"] is not None else len(values)}
    if found | {count if positions is None else len(positions)} != {count}:
        raise ValueError(
            f"a tensor of {size} entries does not have the {count} values that it should"
        )
    base: Base = line["base"]
    if isinstance(line["base"], dict):
        draw = Draw(*(line["base"][field] for field in Draw._fields))
        base = Moved(draw, by) if line["base"].get("moved") and by is not None else draw
    return Part(shape, base, values, positions, line["scale"], line["signs"], dtype)


def kind(dtype: np.dtype, half: bool) -> np.dtype:
    """How a file writes numbers."""
    return np.dtype("<f2") if half and dtype.kind == "f" else dtype
