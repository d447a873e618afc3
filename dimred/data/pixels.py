"""Decodes image files to 8-bit pixels of one size and one number of channels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image

from dimred.data.encoded import Encoded
from dimred.data.files import DamagedData, reading
from dimred.errors import UserError, counted, listed

GREY = {"1", "L", "LA", "La"}  # Pillow's modes with one channel of 8 bits
# the first letters of Pillow's modes with one channel of more than 8 bits, or of floats
DEEP = {"I", "F"}
# the errors of Pillow besides OSError
UNREADABLE = SyntaxError, ValueError, Image.DecompressionBombError


def mode_of(image: Image.Image, channels: int | None) -> str:
    """The mode to convert an image to: L, RGB or, for more than 8 bits, F. `channels` is 1, 3, or
    None to take it from the image."""
    if image.mode[0] in DEEP:
        return "F"
    grey = image.mode in GREY if channels is None else channels == 1
    return "L" if grey else "RGB"


def decode(content: bytes | Path, size: int | None, channels: int | None) -> Image.Image:
    """The (first) image of a file, in the mode of `mode_of`, scaled to a square of `size` pixels
    unless that is None. Raises Pillow's errors."""
    with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as file:
        image = file.convert(mode_of(file, channels))
    return image.resize((size, size), Image.Resampling.BILINEAR) if size else image


def is_grey(content: bytes, name: str) -> bool:
    """Whether an image has one channel; decodes only the header."""
    with reading(name, *UNREADABLE), Image.open(io.BytesIO(content)) as file:
        return mode_of(file, None) != "RGB"


def decode_all(
    encoded: Encoded, path: Path, size: int | None, channels: int | None, threads: int, skip: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """uint8 images (n, C, H, W), which of them are readable (n,), and notes for the user.

    With channels=None, images have one channel if all of them are grey, else three. UserError for
    unequal sizes, and for a damaged image unless `skip`.
    """
    names = [encoded.name(i) for i in range(len(encoded))]

    def pixels(i: int) -> np.ndarray | None:
        try:
            content = encoded.content(i)
            with reading(names[i], *UNREADABLE):
                array = np.asarray(decode(content, size, channels))
        except DamagedData:
            if skip:
                return None
            raise
        return np.ascontiguousarray(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1))

    with ThreadPool(max(threads, 1)) as pool:
        decoded = pool.map(pixels, range(len(names)))
    found = [(name, array) for name, array in zip(names, decoded, strict=True) if array is not None]
    readable = np.array([array is not None for array in decoded], bool)
    if not found:
        return np.empty((len(names), 3, 0, 0), np.uint8), readable, []
    arrays = require_one_size(found, path)
    arrays, notes = in_8_bits([name for name, _ in found], arrays, path)
    images = np.zeros(
        (len(names), channels or max(map(len, arrays)), *arrays[0].shape[1:]), np.uint8
    )
    for i, array in zip(np.flatnonzero(readable), arrays, strict=True):
        images[i] = array  # broadcasts one channel to three
    return images, readable, notes + skipped_notes(names, readable)


def require_one_size(found: Sequence[tuple[str, np.ndarray]], path: Path) -> list[np.ndarray]:
    first, expected = found[0]
    for name, array in found:
        if array.shape[1:] != expected.shape[1:]:
            raise UserError(
                f"The images in {path} have unequal sizes (height, width): {first} "
                f"{expected.shape[1:]}, {name} {array.shape[1:]}. Scale them to one size, for "
                "instance with dataset.resize=64."
            )
    return [array for _, array in found]


def skipped_notes(names: Sequence[str], readable: np.ndarray) -> list[str]:
    skipped = [name for name, good in zip(names, readable, strict=True) if not good]
    if not skipped:
        return []
    return [f"{counted(len(skipped), 'corrupted image')} left out: {listed(skipped)}"]


def in_8_bits(
    names: list[str], arrays: list[np.ndarray], path: Path
) -> tuple[list[np.ndarray], list[str]]:
    """The arrays as uint8, and notes for the user. Images of more than 8 bits are scaled by the
    range of all images, so that they stay comparable."""
    deep = [array.dtype != np.uint8 for array in arrays]
    if not any(deep):
        return arrays, []
    if not all(deep):
        raise UserError(
            f"{path} has images of 8 bits ({names[deep.index(False)]}) and deeper ones "
            f"({names[deep.index(True)]}), which have no common scale. Convert all of them to one "
            "depth."
        )
    low = min(float(array.min()) for array in arrays)
    high = max(float(array.max()) for array in arrays)
    if not all(np.isfinite(array).all() for array in arrays):
        raise UserError(
            f"Some images in {path} have infinite or NaN values. Repair or remove them."
        )
    scale = 255 / (high - low) if high > low else 0.0
    note = (
        f"the images are deeper than 8 bits: their range, {low:g} to {high:g}, is scaled to "
        "0 to 255"
    )
    return [((array - low) * scale + 0.5).astype(np.uint8) for array in arrays], [note]
