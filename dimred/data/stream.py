"""Streams encoded images that are too large for memory. Batches do not depend on the number of
worker processes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dimred.data.augmentation import Augmentation, erase
from dimred.data.base import (
    COPY,
    EPOCH,
    ITEM,
    Batches,
    Data,
    generator,
    held_out,
    log_notes,
    require_examples,
    require_range,
)
from dimred.data.crops import DRAWS, Choose, centre_box, random_box, square
from dimred.data.encoded import Collection, Encoded
from dimred.data.files import DamagedData, reading
from dimred.data.layout import Split
from dimred.data.memory import affine, mirror
from dimred.data.pixels import UNREADABLE, is_grey
from dimred.data.share import WHOLE, Share
from dimred.data.workers import spared_from_signals
from dimred.errors import UserError

log = logging.getLogger(__name__)

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and std, if none are given
GREY_IMAGENET = (0.449,), (0.226,)  # their means over the channels


@dataclass(kw_only=True)
class Stream(Data):
    """Encoded images, read again in every epoch; see `imagefolder` for the fields.

    Train images are random parts (RandomResizedCrop), scaled to `resize` x `resize` pixels. For
    evaluation, the central square of 224/256 of the shorter side is scaled.

    Worker processes read, decode and scale. The device mirrors and normalises."""

    name: str
    collection: Collection
    val_fraction: float
    resize: int
    channels: int | None
    workers: int
    mean: Sequence[float] | None
    std: Sequence[float] | None
    flip: bool
    skip_corrupted: bool

    def __post_init__(self) -> None:
        require_range(val_fraction=(self.val_fraction, 0, 1), resize=(self.resize, 1, 4096))
        require_range(workers=(self.workers, 0, 1024))
        encoded = self.collection.encoded
        train, val, test, notes = self.collection.layout
        log_notes(self.name, notes)
        if val is None:
            keep, held = held_out(train.labels, self.val_fraction)
            train, val = train.at(keep), train.at(held)
        self.parts = {"train": train, "val": val, "test": test}
        self.sizes = {name: len(part.labels) for name, part in self.parts.items()}
        require_examples(self.name, self.sizes)
        self.classes = max(int(part.labels.max(initial=-1)) for part in self.parts.values()) + 1
        channels = self.channels or (1 if self.all_grey(encoded) else 3)
        self.shape = (channels, self.resize, self.resize)
        usual = GREY_IMAGENET if channels == 1 else IMAGENET
        mean, std = (
            given or by_default
            for given, by_default in zip((self.mean, self.std), usual, strict=True)
        )
        self.scale, self.shift = affine(
            mean, std, torch.empty(0, channels, 0, 0, dtype=torch.uint8)
        )
        self.skipped: set[str] = set()  # names of corrupted images

    def all_grey(self, encoded: Encoded) -> bool:
        """Whether all images are grey. Reads them up to the first that is not."""
        used = np.concatenate([part.positions for part in self.parts.values()])
        return all(is_grey(encoded.content(int(i)), encoded.name(int(i))) for i in used)

    def to(self, device: torch.device) -> Stream:
        moved = copy.copy(self)
        moved.scale, moved.shift = self.scale.to(device), self.shift.to(device)
        return moved

    def train_batches(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Batches:
        return self.train_shares(WHOLE, batch_size, seed, epoch, start)

    def train_shares(
        self, share: Share, batch_size: int, seed: int, epoch: int, start: int = 0
    ) -> Batches:
        steps = self.steps_per_epoch(batch_size)
        order = generator(EPOCH, seed, epoch).permutation(self.sizes["train"])
        chosen = (order[share.of(batch_size, step * batch_size)] for step in range(start, steps))
        return self.batches("train", (Request(each, self.random(seed, epoch)) for each in chosen))

    def random(self, seed: int, epoch: int) -> tuple[int, ...]:
        """What the random parts of an epoch's images depend on, besides their positions."""
        return (seed, epoch) if self.copies is None else (seed, epoch % self.copies, COPY)

    def with_copies(self, copies: int) -> Stream:
        same = copy.copy(self)
        same.copies = copies
        return same

    def with_augmentation(self, more: Augmentation) -> Stream:
        same = copy.copy(self)
        same.more = more
        return same

    @property
    def stored_copies(self) -> int:
        return self.copies or 0

    def stored_order(self, seed: int, epoch: int) -> Tensor:
        n = self.sizes["train"]
        order = generator(EPOCH, seed, epoch).permutation(n)
        return torch.from_numpy(order + epoch % self.stored_copies * n).to(self.scale.device)

    def stored_batches(self, seed: int, batch_size: int = 1024) -> Batches:
        positions = np.arange(self.sizes["train"])
        for number in range(self.stored_copies):
            chosen = (
                positions[at : at + batch_size] for at in range(0, len(positions), batch_size)
            )
            random = self.random(seed, number)
            yield from self.batches("train", (Request(each, random) for each in chosen))

    def eval_batches(self, split: str, batch_size: int = 1024) -> Batches:
        return self.eval_shares(WHOLE, split, batch_size)

    def eval_shares(self, share: Share, split: str, batch_size: int = 1024) -> Batches:
        examples = np.arange(self.sizes[split])
        return self.plain_batches(split, examples[share.of(len(examples))], batch_size)

    def sample(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        return next(self.plain_batches("train", self.choose(n, seed), n))

    def plain_batches(self, split: str, chosen: np.ndarray, batch_size: int) -> Batches:
        firsts = range(0, len(chosen), batch_size)
        return self.batches(split, (Request(chosen[at : at + batch_size]) for at in firsts))

    def batches(self, split: str, requests: Iterable[Request]) -> Batches:
        for loaded in self.loaded(split, requests):
            if isinstance(loaded, UserError):
                raise loaded
            self.report(loaded.skipped)
            images, labels, mirrored, boxes = (
                each.to(self.scale.device, non_blocking=True) for each in loaded.tensors
            )
            if mirrored.numel():
                images = mirror(images, mirrored)
            images = images.to(torch.float32).mul_(self.scale).add_(self.shift)
            if boxes.numel():
                images = erase(images, boxes)
            yield images, labels

    def loaded(self, split: str, requests: Iterable[Request]) -> Iterator[Loaded | UserError]:
        """The batches, in order, from worker processes."""
        part = self.parts[split]
        loader = DataLoader(
            Parts(
                *(self.collection.encoded, part, self.shape, self.flip, self.skip_corrupted),
                self.more,
            ),
            sampler=requests,
            batch_size=None,
            num_workers=self.workers,
            collate_fn=unchanged,
            pin_memory=self.scale.device.type == "cuda",
            # Without a generator, the DataLoader draws the workers' seed from the global one.
            generator=torch.Generator(),
        )
        with spared_from_signals():
            return iter(loader)

    def report(self, skipped: Sequence[str]) -> None:
        for name in sorted(set(skipped) - self.skipped):
            self.skipped.add(name)
            log.warning(
                "%s: %s is corrupted, and the next image takes its place (%d so far)",
                *(self.name, name, len(self.skipped)),
            )


class Request(NamedTuple):
    """Examples of a batch, by their positions in a split; random parts with a seed and an epoch,
    else central ones."""

    positions: np.ndarray
    random: tuple[int, ...] | None = None


class Loaded(NamedTuple):
    """A batch."""

    #: uint8 images (n, C, H, W), int64 labels (n,), which to mirror, bool (n,) or (0,), and
    #: rectangles to erase, int64 (4, n) or (4, 0)
    tensors: tuple[Tensor, Tensor, Tensor, Tensor]
    skipped: list[str]


@dataclass
class Parts(Dataset):
    """Parts of the images of a split. All randomness of an example depends on its seed, epoch and
    position alone, not on the batch or the worker."""

    encoded: Encoded
    part: Split
    shape: tuple[int, ...]
    flip: bool
    skip_corrupted: bool
    more: Augmentation

    def __getitem__(self, request: Request) -> Loaded | UserError:
        """A UserError is returned: raised in a worker, its message would be buried in a
        traceback."""
        n = len(request.positions)
        pixels = torch.empty(n, *self.shape, dtype=torch.uint8)
        labels = torch.empty(n, dtype=torch.int64)
        mirrored = torch.zeros(n if request.random else 0, dtype=torch.bool)
        boxes = torch.zeros(4, n if request.random and self.more.erasing else 0, dtype=torch.int64)
        skipped: list[str] = []
        try:
            for i, position in enumerate(request.positions.tolist()):
                choose = centre_box
                if request.random:
                    rng = generator(ITEM, *request.random, position)
                    flip, *draws = rng.random(1 + DRAWS).tolist()
                    choose = partial(random_box, draws=draws)
                    mirrored[i] = self.flip and flip < 0.5
                pixels[i], labels[i] = self.read(position, choose, skipped)
                if request.random:
                    pixels[i], boxes[:, i : i + 1] = self.augmented(pixels[i], rng)
        except UserError as error:
            return error
        return Loaded((pixels, labels, mirrored, boxes), skipped)

    def augmented(self, pixels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The transformed image, and the rectangle (4, 1) or (4, 0) to erase."""
        seeds, box = self.more.seeds(rng, 1), self.more.boxes(rng, 1, self.shape[1:])
        if seeds is not None:
            pixels = self.more.transformed(pixels[None], seeds.tolist())[0]
        return pixels, torch.zeros(4, 0, dtype=torch.int64) if box is None else box

    def read(self, position: int, choose: Choose, skipped: list[str]) -> tuple[Tensor, int]:
        """The pixels and the label of an example. The next readable example of the split stands in
        for one that is corrupted, if such are skipped: so a batch has its size, and no other
        example another place. Appends the names of the corrupted."""
        n = len(self.part.labels)
        for at in range(position, position + n):
            image = int(self.part.positions[at % n])
            try:
                return self.pixels(image, choose), int(self.part.labels[at % n])
            except DamagedData:
                if not self.skip_corrupted:
                    raise
                skipped.append(self.encoded.name(image))
        raise UserError(f"Every image of a split ({n}) is corrupted, {skipped[0]} among them.")

    def pixels(self, image: int, choose: Choose) -> Tensor:
        channels, size, _ = self.shape
        content, name = self.encoded.content(image), self.encoded.name(image)
        with reading(name, *UNREADABLE):
            return square(content, name, choose, size, channels)


def unchanged(loaded: Any) -> Any:
    """For a DataLoader that collates nothing."""
    return loaded
