"""Codes: n sorted flat positions in a tensor of D entries as bytes, and back.

               written                              bytes
    bitmap     a bit for every entry                D / 8
    csr        end of each row, columns             (rows + 1) w(n) + n w(columns - 1)
    delta      gaps between positions, Rice-coded   (8 + n k + n + sum of gap >> k) / 8, best k
    entropy    a bit for every entry, range-coded   close to D H(n / D) / 8, the lower bound

w(x) is the width of an integer up to x: 1, 2, 4 or 8 bytes. docs/storage.md has the layouts. Rice,
JPL 79-22, 1979."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Positions = np.ndarray[Any, np.dtype[np.int64]]
Shape = tuple[int, ...]


def pack(bits: np.ndarray) -> bytes:
    return np.packbits(bits, bitorder="little").tobytes()


def unpack(code: bytes, count: int) -> np.ndarray:
    """The first `count` bits (bool)."""
    return np.unpackbits(np.frombuffer(code, np.uint8), count=count, bitorder="little").view(bool)


def marked(positions: Positions, size: int) -> np.ndarray:
    """True at the positions."""
    mask = np.zeros(size, bool)
    mask[positions] = True
    return mask


# -- bitmap --------------------
def bitmap(positions: Positions, shape: Shape) -> bytes:
    return pack(marked(positions, math.prod(shape)))


def from_bitmap(code: bytes, count: int, shape: Shape) -> Positions:
    return np.flatnonzero(unpack(code, math.prod(shape)))


# -- compressed sparse rows --------------------
def width(largest: int) -> np.dtype:
    """The narrowest unsigned integer, little-endian, that holds numbers up to the largest."""
    return np.min_scalar_type(largest).newbyteorder("<")


def csr(positions: Positions, shape: Shape) -> bytes:
    """Rows are the first dimension of a weight; a vector is one row."""
    rows, columns = rows_columns(shape)
    ends = np.searchsorted(positions, np.arange(rows + 1) * columns)
    return (
        ends.astype(width(len(positions))).tobytes()
        + (positions % columns).astype(width(columns - 1)).tobytes()
    )


def from_csr(code: bytes, count: int, shape: Shape) -> Positions:
    rows, columns = rows_columns(shape)
    ends = np.frombuffer(code, width(count), rows + 1).astype(np.int64)
    column = np.frombuffer(
        code, width(columns - 1), count, ends.size * width(count).itemsize
    ).astype(np.int64)
    return np.repeat(np.arange(rows), np.diff(ends)) * columns + column


def rows_columns(shape: Shape) -> tuple[int, int]:
    return (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))


# -- gaps --------------------
def delta(positions: Positions, shape: Shape) -> bytes:
    """k; the low k bits of every gap, one after the other; the higher bits in unary: as many zeros
    as their value, and a one."""
    gaps = np.diff(positions, prepend=-1) - 1
    k = rice(gaps)
    low = (gaps[:, None] >> np.arange(k)) & 1
    high = (gaps >> k) + 1
    unary = marked(np.cumsum(high) - 1, int(high.sum()))
    return bytes([k]) + pack(low.astype(bool)) + pack(unary)


def rice(gaps: np.ndarray) -> int:
    """The k of the shortest code."""
    bits = [k * len(gaps) + int((gaps >> k).sum()) for k in range(int(gaps.max()).bit_length() + 1)]
    return int(np.argmin(bits))


def from_delta(code: bytes, count: int, shape: Shape) -> Positions:
    k = code[0]
    start = 1 + (k * count + 7) // 8
    low = unpack(code[1:start], k * count).reshape(count, k) @ (1 << np.arange(k, dtype=np.int64))
    ones = np.flatnonzero(unpack(code[start:], 8 * (len(code) - start)))
    high = np.diff(ones, prepend=-1) - 1
    return np.cumsum((high << k) + low + 1) - 1


# -- a range coder --------------------
def entropy(positions: Positions, shape: Shape) -> bytes:
    from constriction import stream

    size, encoder = math.prod(shape), stream.queue.RangeEncoder()
    law = stream.model.Bernoulli(len(positions) / size, perfect=False)
    encoder.encode(marked(positions, size).astype(np.int32), law)
    return encoder.get_compressed().astype("<u4").tobytes()


def from_entropy(code: bytes, count: int, shape: Shape) -> Positions:
    from constriction import stream

    size = math.prod(shape)
    decoder = stream.queue.RangeDecoder(np.frombuffer(code, "<u4").astype(np.uint32))
    return np.flatnonzero(decoder.decode(stream.model.Bernoulli(count / size, perfect=False), size))


def bound(count: int, size: int) -> float:
    """The lower bound, on average, of the bytes that tell `count` of `size` entries apart: size *
    H(count / size) / 8."""
    p = count / max(1, size)
    return size * sum(-q * math.log2(q) for q in (p, 1 - p) if q) / 8


Encode = Callable[[Positions, Shape], bytes]
Decode = Callable[[bytes, int, Shape], Positions]
CODES: dict[str, tuple[Encode, Decode]] = {
    "bitmap": (bitmap, from_bitmap),
    "csr": (csr, from_csr),
    "delta": (delta, from_delta),
    "entropy": (entropy, from_entropy),
}
