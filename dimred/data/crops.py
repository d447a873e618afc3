"""Random and central parts of encoded images, scaled to squares of one size."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dimred.data.pixels import mode_of
from dimred.errors import UserError

try:
    from simplejpeg import decode_jpeg
except ImportError:  # the extra dimred[jpeg]
    decode_jpeg = None

AREA = 0.08, 1.0  # the least and the largest part of an image
LOG_RATIO = math.log(3 / 4), math.log(4 / 3)  # of width to height
TRIES = 10  # at a part that lies within the image
CENTRE = 224 / 256  # of the shorter side, for evaluation
DRAWS = 2 + 2 * TRIES
SHRUNK = 8, 4, 2  # what libjpeg can divide the sides of an image by as it decodes it


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


Choose = Callable[[int, int], Box]  # of the width and the height of an image


def random_box(width: int, height: int, draws: Sequence[float]) -> Box:
    """The distribution of torchvision's RandomResizedCrop, as a function of DRAWS numbers in
    [0, 1)."""
    down, across, *sizes = draws
    for size, shape in zip(sizes[::2], sizes[1::2], strict=True):
        area = width * height * between(size, *AREA)
        ratio = math.exp(between(shape, *LOG_RATIO))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            return Box(
                int(down * (height - high + 1)), int(across * (width - wide + 1)), high, wide
            )
    # the largest part in the middle whose ratio is allowed
    wide = min(width, max(1, round(height * math.exp(LOG_RATIO[1]))))
    high = min(height, max(1, round(width / math.exp(LOG_RATIO[0]))))
    return Box((height - high) // 2, (width - wide) // 2, high, wide)


def between(share: float, low: float, high: float) -> float:
    return low + share * (high - low)


def centre_box(width: int, height: int) -> Box:
    """The square that Resize(256) and CenterCrop(224) of torchvision select."""
    side = max(1, round(min(width, height) * CENTRE))
    return Box((height - side) // 2, (width - side) // 2, side, side)


def square(content: bytes, name: str, choose: Choose, size: int, channels: int) -> Tensor:
    """The chosen part of an encoded image, uint8 (channels, size, size), bilinear with
    antialiasing. Raises Pillow's errors, and UserError for an image of more than 8 bits."""
    pixels = part(content, name, choose, size, channels)
    # on a CPU, three times as fast as Pillow's
    return F.interpolate(pixels[None], (size, size), mode="bilinear", antialias=True)[0]


def part(content: bytes, name: str, choose: Choose, size: int, channels: int) -> Tensor:
    """The part, uint8 (channels, height, width), not scaled; or reduced by libjpeg, if it is still
    as large as `size` then."""
    with Image.open(io.BytesIO(content)) as file:
        mode = mode_of(file, channels)
        if mode == "F":
            raise UserError(
                f"{name} is deeper than 8 bits, and such images are scaled by the range of all "
                "images. Use dataset.in_memory=true, which finds that range, or convert them to 8 "
                "bits."
            )
        box = choose(*file.size)
        shrink = 1
        if file.format == "JPEG":
            shrink = next((by for by in SHRUNK if min(box.height, box.width) >= by * size), 1)
            if shrink > 1:
                box = reduce(file, box, shrink)
        top, left, height, width = box
        whole = None
        if shrink == 1 and file.format == "JPEG" and file.mode == mode:
            whole = decoded(content, mode)
        if whole is not None:
            pixels = whole[top : top + height, left : left + width]
        else:
            image = file.crop((left, top, left + width, top + height))
            pixels = np.array(image if image.mode == mode else image.convert(mode))
    return torch.from_numpy(pixels.reshape(height, width, channels)).permute(2, 0, 1)


def decoded(content: bytes, mode: str) -> np.ndarray | None:
    """A whole JPEG by simplejpeg: Pillow's pixels, in 0.85 of its time. None without it, and for a
    file that it finds wrong: Pillow says what is wrong, or reads it all the same."""
    if decode_jpeg is None:
        return None
    try:
        return decode_jpeg(content, "RGB" if mode == "RGB" else "GRAY")
    except ValueError:
        return None


def reduce(file: Image.Image, box: Box, shrink: int) -> Box:
    """Let Pillow decode a JPEG with sides divided by `shrink`; returns the box there."""
    width, height = file.size
    file.draft(file.mode, (width // shrink, height // shrink))
    across, down = file.size[0] / width, file.size[1] / height
    return Box(
        int(box.top * down),
        int(box.left * across),
        max(1, int(box.height * down)),
        max(1, int(box.width * across)),
    )
