"""Batches of mixed images with soft labels: MixUp and CutMix.

MixUp (Zhang, Cisse, Dauphin, Lopez-Paz, ICLR 2018) blends each image of a batch with another one;
CutMix (Yun, Han, Oh, Chun, Choe, Yoo, ICCV 2019) replaces a rectangle of it by that of another one.
Labels are mixed in the same proportion. As in the papers' code, a batch has one proportion, drawn
from Beta(alpha, alpha), and its partners are a permutation of the batch. With both, each batch
takes one of them with equal probability.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dimred.data.base import MIX, Batches, Data, Source, generator
from dimred.data.share import Share
from dimred.errors import require


class Mixed(Source):
    """The data with mixed training batches; evaluation is that of the data.

    Draws depend on the seed, the epoch and the step. Partners may be anywhere in the batch, so each
    of several processes reads whole batches.

    mixup, cutmix: alpha of each; 0 for none.
    """

    def __init__(self, data: Data, mixup: float, cutmix: float) -> None:
        for key, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            require(
                not alpha or len(data.shape) == 3,
                f"recipe.{key}",
                alpha,
                f"0 for {data.name}: its inputs are no images, and cannot be mixed",
            )
        self.data, self.mixup, self.cutmix = data, mixup, cutmix
        self.name, self.sizes = data.name, data.sizes

    def train_batches(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Batches:
        """Labels are probabilities (N, classes)."""
        batches = self.data.train_batches(batch_size, seed, epoch, start)
        for step, (images, labels) in enumerate(batches, start):
            rng = generator(MIX, seed, epoch, step)
            cuts = rng.random() < self._part_of_cutmix
            drawn = draw(rng, self.cutmix if cuts else self.mixup, len(labels))
            probabilities = F.one_hot(labels, self.data.classes).float()
            yield (cutmix if cuts else mixup)(images, probabilities, drawn)

    @property
    def _part_of_cutmix(self) -> float:
        """The probability that a batch takes it."""
        return 0.5 if self.mixup and self.cutmix else float(self.cutmix > 0)

    def eval_batches(self, split: str, batch_size: int = 1024) -> Batches:
        return self.data.eval_batches(split, batch_size)

    def eval_shares(self, share: Share, split: str) -> Batches:
        return self.data.eval_shares(share, split)


class Draws(NamedTuple):
    """The random choices of a batch."""

    own: float  # the proportion of an image itself
    partners: np.ndarray  # (n,)
    centre: np.ndarray  # (2,) of a rectangle, in [0, 1)


def draw(rng: np.random.Generator, alpha: float, n: int) -> Draws:
    return Draws(float(rng.beta(alpha, alpha)), rng.permutation(n), rng.random(2))


def mixup(images: Tensor, labels: Tensor, drawn: Draws) -> tuple[Tensor, Tensor]:
    partners = torch.from_numpy(drawn.partners).to(images.device)
    other = 1 - drawn.own
    return images.lerp(images[partners], other), labels.lerp(labels[partners], other)


def cutmix(images: Tensor, labels: Tensor, drawn: Draws) -> tuple[Tensor, Tensor]:
    """The rectangle has the shape of the image and a random centre; where it reaches beyond the
    image, the proportion of labels is that of the area within."""
    partners = torch.from_numpy(drawn.partners).to(images.device)
    height, width = images.shape[2:]
    side = math.sqrt(1 - drawn.own)
    rows = part(height, side, drawn.centre[0])
    columns = part(width, side, drawn.centre[1])
    mixed = images.clone()
    mixed[:, :, rows, columns] = images[partners, :, rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, labels.lerp(labels[partners], area / (height * width))


def part(length: int, share: float, centre: float) -> slice:
    """A share of a side around a centre, as far as it is within the image."""
    cut, middle = int(length * share), int(length * centre)
    return slice(max(0, middle - cut // 2), min(length, middle - cut // 2 + cut))
