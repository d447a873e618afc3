"""RandAugment, TrivialAugment and random erasing, as functions of random numbers that are given.

The transforms are torchvision's. They draw from torch's global generator, so each image is
transformed by itself, with that generator set by a seed of the image's own. So an image does not
depend on the batch, the process or the worker that it is in; the generator's state is put back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Policy = Literal["none", "randaugment", "trivialaugment"]

#: of torchvision's RandomErasing: the part of the image, the logarithm of the ratio of height to
#: width, and how often it tries to find a rectangle within the image
AREA, LOG_RATIO, TRIES = (0.02, 0.33), (math.log(0.3), math.log(3.3)), 10
SEEDS = 2**63 - 1


class Augmentation(NamedTuple):
    """What is done to training images besides crops and flips.

    policy: torchvision's transform, with its default values.
    erasing: the probability that a rectangle becomes zero, after normalisation.
    """

    policy: Policy = "none"
    erasing: float = 0.0

    def seeds(self, rng: np.random.Generator, n: int) -> Tensor | None:
        """The seeds (n,) of images; None if they need none."""
        if self.policy == "none":
            return None
        return torch.from_numpy(rng.integers(SEEDS, size=n))

    def boxes(self, rng: np.random.Generator, n: int, size: Sequence[int]) -> Tensor | None:
        """The rectangles (4, n) to erase: top, left, bottom and right; None if none is."""
        if not self.erasing:
            return None
        return torch.from_numpy(boxes(rng, n, self.erasing, *size))

    def transformed(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """uint8 images (n, C, H, W), each transformed by its seed."""
        transform = transform_of(self.policy)
        with generator_kept() as draws:
            out = []
            for image, seed in zip(images, seeds, strict=True):
                draws.manual_seed(seed)
                out.append(transform(image))
        return torch.stack(out)


def transform_of(policy: Policy) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import v2  # takes a second, which others need not wait

    return v2.RandAugment() if policy == "randaugment" else v2.TrivialAugmentWide()


@contextmanager
def generator_kept() -> Iterator[torch.Generator]:
    """torch's generator on the CPU, which has its state again after the block."""
    state = torch.get_rng_state()
    try:
        yield torch.default_generator
    finally:
        torch.set_rng_state(state)


def boxes(
    rng: np.random.Generator, n: int, probability: float, height: int, width: int
) -> np.ndarray:
    """Rectangles (4, n) with the distribution of torchvision's RandomErasing; empty ones for images
    that stay as they are."""
    erased = rng.random(n) < probability
    area = height * width * rng.uniform(*AREA, (TRIES, n))
    ratio = np.exp(rng.uniform(*LOG_RATIO, (TRIES, n)))
    high, wide = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (high < height) & (wide < width)
    first = fits.argmax(0), np.arange(n)  # of the tries
    erased &= fits[first]
    high, wide = high[first] * erased, wide[first] * erased
    top = np.floor(rng.random(n) * (height - high + 1))
    left = np.floor(rng.random(n) * (width - wide + 1))
    return np.stack([top, left, top + high, left + wide]).astype(np.int64)


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Images (n, C, H, W) with zeros in the rectangles (4, n)."""
    top, left, bottom, right = (side.view(-1, 1, 1, 1) for side in boxes)
    row = torch.arange(images.shape[2], device=images.device).view(-1, 1)
    column = torch.arange(images.shape[3], device=images.device)
    within = (row >= top) & (row < bottom) & (column >= left) & (column < right)
    return images.masked_fill(within, 0)
