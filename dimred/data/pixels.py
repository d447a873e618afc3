"""Decodes image files to 8-bit pixels of one size and one number of channels."""

from __future__ import annotations

import io
from collections.abc import Iterable
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image

from dimred.data.files import reading
from dimred.data.images import Member
from dimred.errors import UserError

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


def is_grey(path: Path) -> bool:
    """Whether an image has one channel; reads only the header."""
    with reading(path, *UNREADABLE), Image.open(path) as file:
        return mode_of(file, None) != "RGB"


def decode_all(
    source: Iterable[Member], path: Path, size: int | None, channels: int | None, threads: int
) -> tuple[list[str], np.ndarray, list[str]]:
    """The names of all members, uint8 images (n, C, H, W) of the first n, and notes for the user.

    Folders (see `members`) are last. With channels=None, images have one channel if all of them are
    grey, else three. UserError for a damaged image or unequal sizes.
    """

    def pixels(member: Member) -> np.ndarray:
        with reading(f"{path}: {member[0]}", *UNREADABLE):
            array = np.asarray(decode(member[1], size, channels))
            return np.ascontiguousarray(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1))

    found = sorted(source, key=lambda member: (member[0].endswith("/"), member[0]))
    names = [name for name, _ in found]
    with ThreadPool(max(threads, 1)) as pool:
        arrays = pool.map(pixels, [member for member in found if not member[0].endswith("/")])
    for name, array in zip(names, arrays, strict=False):
        if array.shape[1:] != arrays[0].shape[1:]:
            raise UserError(
                f"The images in {path} have unequal sizes (height, width): {names[0]} "
                f"{arrays[0].shape[1:]}, {name} {array.shape[1:]}. Scale them to one size, for "
                "instance with dataset.resize=64."
            )
    if not arrays:
        return names, np.empty((0, 3, 0, 0), np.uint8), []
    arrays, notes = in_8_bits(names, arrays, path)
    images = np.empty(
        (len(arrays), channels or max(map(len, arrays)), *arrays[0].shape[1:]), np.uint8
    )
    for i, array in enumerate(arrays):
        images[i] = array  # broadcasts one channel to three
    return names, images, notes


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
