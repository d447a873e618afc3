"""Data sets in the memory of the device: whole batches of images are cropped, flipped and
normalised at once.

The approach of Keller Jordan's airbench (github.com/KellerJordan/cifar10-airbench).
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dimred.data.arrays import Examples, classes_of, resized, tidy
from dimred.data.augmentation import Augmentation, erase
from dimred.data.base import (
    COPY,
    EPOCH,
    Batches,
    Data,
    generator,
    held_out,
    log_notes,
    require_examples,
    require_range,
)
from dimred.data.feed import Feed
from dimred.data.share import WHOLE, Share
from dimred.errors import UserError

__all__ = ["Examples", "Memory"]


class Draws(NamedTuple):
    """The random choices of an epoch of n examples; None where there is nothing to choose."""

    order: Tensor  # (n,)
    corner: Tensor | None  # (2, n): upper left corners of the crops
    mirrored: Tensor | None  # (n,): which images to mirror
    seeds: Tensor | None  # (n,) of further transforms
    boxes: Tensor | None  # (4, n): rectangles to erase

    def in_order(self, order: Tensor) -> Draws:
        """Those of the examples in another order."""
        _, *drawn = self
        return Draws(order, *(None if each is None else each[..., order] for each in drawn))


@dataclass(kw_only=True)
class Memory(Data):
    """A data set in memory. Subclasses implement `read`.

    val_fraction: of the training examples, held out for validation if there is no validation set
    resize: scales all images to squares of this size, in pixels
    mean, std: per channel, of pixels in [0, 1] or of floating-point values as they are; null takes
        them from the train split
    crop_padding: train images are padded by so many black pixels and cropped at random
    flip: mirrors a train image with probability 1/2
    """

    val_fraction: float
    resize: int | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    crop_padding: int
    flip: bool

    @abstractmethod
    def read(self) -> tuple[Examples, ...]:
        """The training and the test set, or the training, validation and test set, in any form that
        `arrays.tidy` accepts."""

    def __post_init__(self) -> None:
        require_range(val_fraction=(self.val_fraction, 0, 1), resize=(self.resize, 1, 4096))
        require_range(crop_padding=(self.crop_padding, 0, 512))
        parts = [resized(tidy(part, self.name), self.resize) for part in self.read()]
        train, *own, test = parts
        if own:
            val = own[0]
        else:
            keep, held = held_out(train.labels.numpy(), self.val_fraction)
            train, val = train.at(keep), train.at(held)
        self.sizes = {"train": len(train.labels), "val": len(val.labels), "test": len(test.labels)}
        require_examples(self.name, self.sizes)
        self.classes, notes = classes_of(parts)
        log_notes(self.name, notes)
        _, channels, height, width = train.images.shape
        self.shape = channels, height, width
        self.scale, self.shift = affine(self.mean, self.std, train.images)
        # Padded once for all crops; `plain` takes the original images from the middle.
        padded = train._replace(images=F.pad(train.images, [self.crop_padding] * 4))
        self.splits = {"train": padded, "val": val, "test": test}

    @property
    def device(self) -> torch.device:
        return self.scale.device

    def to(self, device: torch.device) -> Memory:
        moved = copy.copy(self)
        moved.scale, moved.shift = self.scale.to(device), self.shift.to(device)
        moved.splits = {
            name: Examples(*(t.to(device) for t in part)) for name, part in self.splits.items()
        }
        return moved

    def train_batches(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Batches:
        return self.train_shares(WHOLE, batch_size, seed, epoch, start)

    def train_shares(
        self, share: Share, batch_size: int, seed: int, epoch: int, start: int = 0
    ) -> Batches:
        steps = self.steps_per_epoch(batch_size)
        draws = self.random_order(seed, epoch)
        for step in range(start, steps):
            yield self.select(draws, share.of(batch_size, step * batch_size))

    def feed(self, batch_size: int, fixed: bool = False, share: Share = WHOLE) -> Feed:
        # the host transforms image by image, so that is no part of a step
        within = fixed and self.more.policy == "none"
        return (Selection if within else Feed)(self, batch_size, fixed, share)

    def with_copies(self, copies: int) -> Memory:
        same = copy.copy(self)
        same.copies = copies
        return same

    def with_augmentation(self, more: Augmentation) -> Memory:
        if more.policy != "none" and self.splits["train"].images.dtype != torch.uint8:
            raise UserError(
                f"recipe.augment={more.policy} transforms images of 8 bits, and those of "
                f"{self.name} are floating-point numbers. Choose recipe.augment=none"
            )
        same = copy.copy(self)
        same.more = more
        return same

    @property
    def stored_copies(self) -> int:
        augmented = self.crop_padding or self.flip or self.more != Augmentation()
        return self.copies or 0 if augmented else 1

    def stored_order(self, seed: int, epoch: int) -> Tensor:
        order = self.random_order(seed, epoch).order
        return order + epoch % self.stored_copies * self.sizes["train"]

    def stored_batches(self, seed: int, batch_size: int = 1024) -> Batches:
        for number in range(self.stored_copies):
            draws = self.copy_of_all(seed, number)
            for first in range(0, self.sizes["train"], batch_size):
                yield self.select(draws, slice(first, first + batch_size))

    def random_order(self, seed: int, epoch: int) -> Draws:
        """The random choices of an epoch.

        Drawn for the whole epoch and on the CPU, so that they depend neither on the batch to start
        from nor on the device."""
        rng = generator(EPOCH, seed, epoch)
        order = torch.from_numpy(rng.permutation(self.sizes["train"])).to(self.device)
        if self.copies is None:
            return Draws(order, *self.augmentation(rng))
        return self.copy_of_all(seed, epoch % self.copies).in_order(order)

    def copy_of_all(self, seed: int, number: int) -> Draws:
        """The random choices of a copy, for all examples in the order of the split."""
        order = torch.arange(self.sizes["train"], device=self.device)
        return Draws(order, *self.augmentation(generator(COPY, seed, number)))

    def augmentation(self, rng: np.random.Generator) -> tuple[Tensor | None, ...]:
        """Corners, which to mirror, seeds and rectangles, for as many images as the train split
        has."""
        n, corner, mirrored = self.sizes["train"], None, None
        if self.crop_padding:
            corner = torch.from_numpy(rng.integers(0, 2 * self.crop_padding + 1, (2, n)))
        if self.flip:
            mirrored = torch.from_numpy(rng.random(n) < 0.5)
        seeds, boxes = self.more.seeds(rng, n), self.more.boxes(rng, n, self.shape[1:])
        drawn = (corner, mirrored, seeds, boxes)
        return tuple(None if each is None else each.to(self.device) for each in drawn)

    def select(self, draws: Draws, at: slice | Tensor) -> tuple[Tensor, Tensor]:
        """The augmented, normalised images and the labels at these places of an epoch's order."""
        padded, labels = self.splits["train"]
        chosen = draws.order[at]
        if draws.corner is None:
            images = padded.index_select(0, chosen)
        else:
            images = crop(padded, chosen, draws.corner[:, at], self.shape[1:])
        if draws.mirrored is not None:
            images = mirror(images, draws.mirrored[at])
        if draws.seeds is not None:
            images = self.more.transformed(images, draws.seeds[at].tolist())
        images = self.normalise(images)
        if draws.boxes is not None:
            images = erase(images, draws.boxes[:, at])
        return images, labels.index_select(0, chosen)

    def eval_batches(self, split: str, batch_size: int = 1024) -> Batches:
        return self.eval_shares(WHOLE, split, batch_size)

    def eval_shares(self, share: Share, split: str, batch_size: int = 1024) -> Batches:
        images, labels = self.plain(split)
        part = share.of(len(labels))
        for first in range(part.start, part.stop, batch_size):
            at = slice(first, min(first + batch_size, part.stop))
            yield self.normalise(images[at]), labels[at]

    def sample(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        images, labels = self.plain("train")
        chosen = torch.from_numpy(self.choose(n, seed)).to(self.device)
        return self.normalise(images[chosen]), labels[chosen]

    def plain(self, split: str) -> Examples:
        """The examples of a split, without padding."""
        p, (_, height, width) = self.crop_padding if split == "train" else 0, self.shape
        images, labels = self.splits[split]
        return Examples(images[:, :, p : p + height, p : p + width], labels)

    def normalise(self, images: Tensor) -> Tensor:
        """float32 (pixel - mean) / std, of pixels in [0, 1]."""
        plain = images.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        return plain.mul_(self.scale).add_(self.shift)


class Selection(Feed):
    """Batches that are selected and augmented within the step, on the device.

    The random choices of an epoch and the places of the batch in it lie in fixed tensors."""

    data: Memory

    def __init__(self, data: Memory, batch_size: int, fixed: bool, share: Share = WHOLE) -> None:
        super().__init__(data, batch_size, fixed, share)
        part = share.of(batch_size)
        self._first = torch.arange(part.start, part.stop, device=data.device)
        self._at = self._first.clone()
        self._draws: Draws | None = None

    def steps(self, seed: int, epoch: int, start: int = 0) -> Iterator[None]:
        fresh = self.data.random_order(seed, epoch)
        if self._draws is None:
            self._draws = fresh
        for held, drawn in zip(self._draws, fresh, strict=True):
            if held is not None and drawn is not None:
                held.copy_(drawn)
        for step in range(start, self.data.steps_per_epoch(self.batch_size)):
            torch.add(self._first, step * self.batch_size, out=self._at)
            yield

    def batch(self) -> tuple[Tensor, Tensor]:
        assert self._draws, "steps moves to the first batch"
        return self.data.select(self._draws, self._at)


def crop(padded: Tensor, index: Tensor, corner: Tensor, size: tuple[int, ...]) -> Tensor:
    """Crops of size (H, W) of the images padded[index], with upper left corners `corner` (2, n)."""
    (height, width), (_, channels, *_) = size, padded.shape
    per_image, per_channel, per_row, _ = padded.stride()
    # A view of all runs of `width` values. Copying whole rows from it is twice as fast as indexing
    # windows.
    runs = padded.view(-1).unfold(0, width, 1)
    first = index * per_image + corner[0] * per_row + corner[1]
    planes = torch.arange(channels, device=index.device)[:, None] * per_channel
    rows = planes + torch.arange(height, device=index.device) * per_row
    return runs.index_select(0, (first[:, None, None] + rows).view(-1)).view(
        -1, channels, height, width
    )


def mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """Images (n, C, H, W), flipped horizontally where `mirrored` (n,) is true."""
    if images.is_floating_point():
        return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    # The same as torch.where above, by bits: a xor ((a xor b) and mask) is b where the mask has all
    # bits set, and a where it has none. On a CPU, torch.where takes five times as long.
    mask = mirrored.to(torch.uint8).neg_().view(-1, 1, 1, 1)
    return images.flip(3).bitwise_xor_(images).bitwise_and_(mask).bitwise_xor_(images)


def affine(
    mean: Sequence[float] | None, std: Sequence[float] | None, train: Tensor
) -> tuple[Tensor, Tensor]:
    """The scale and the shift, float32 (C, 1, 1), that normalise a value. null takes the moments of
    the train images."""
    largest = 1 if train.is_floating_point() else 255  # the value that counts as 1
    measured = moments(train) if mean is None or std is None else (mean, std)
    centre, spread = (
        torch.tensor(list(given or found))
        for given, found in zip((mean, std), measured, strict=True)
    )
    if not len(centre) == len(spread) == train.shape[1] or not (spread > 0).all():
        raise UserError(
            f"Got dataset.mean={centre.tolist()} and dataset.std={spread.tolist()}; allowed are "
            f"one number per channel, here {train.shape[1]}, and std > 0. Set them so, or to null "
            "to measure the train split. (For a folder of grey images, dataset.channels=3 repeats "
            "their channel.)"
        )
    return (1 / (largest * spread)).view(-1, 1, 1), (-centre / spread).view(-1, 1, 1)


def moments(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of images (n, C, H, W).

    Those of uint8 images are of pixels in [0, 1], and computed from exact counts.
    """
    if images.is_floating_point():
        std, mean = torch.std_mean(images.double(), (0, 2, 3), correction=0)
        return mean.tolist(), std.tolist()
    levels = torch.arange(256, dtype=torch.float64) / 255
    share = torch.stack(
        [torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)]
    ).double()
    share /= share.sum(1, keepdim=True)
    mean = share @ levels
    return mean.tolist(), (share @ levels**2 - mean**2).clamp(min=0).sqrt().tolist()
