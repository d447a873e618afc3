"""Streams image folders that are too large for memory. Batches do not depend on the number of
DataLoader workers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from dimred.data.base import (
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
from dimred.data.files import reading
from dimred.data.images import names_in
from dimred.data.layout import Split, arrange
from dimred.data.memory import affine
from dimred.data.pixels import UNREADABLE, decode, is_grey
from dimred.errors import UserError

Key = tuple[int, int, int]  # seed, epoch, position in the split
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and std, if none are given
GREY_IMAGENET = (0.449,), (0.226,)  # their means over the channels


@dataclass(kw_only=True)
class Stream(Data):
    """A directory of class folders, read again in every epoch; see `imagefolder` for the fields.

    Train images are random parts (RandomResizedCrop), scaled to `resize` x `resize` pixels. For
    evaluation, the shorter side is scaled to 256/224 of `resize`, and the centre is cropped."""

    name: str
    path: str
    val_fraction: float
    resize: int
    channels: int | None
    workers: int
    mean: Sequence[float] | None
    std: Sequence[float] | None
    flip: bool

    def __post_init__(self) -> None:
        require_range(val_fraction=(self.val_fraction, 0, 1), resize=(self.resize, 1, 4096))
        require_range(workers=(self.workers, 0, 1024))
        self.root = Path(self.path).expanduser()
        self.names = names_in(self.root)
        train, val, test, notes = arrange(self.names, self.root)
        log_notes(self.name, notes)
        self.classes = int(train.labels.max()) + 1
        if val is None:
            keep, held = held_out(train.labels, self.val_fraction)
            train, val = train.at(keep), train.at(held)
        self.parts = {"train": train, "val": val, "test": test}
        self.sizes = {name: len(part.labels) for name, part in self.parts.items()}
        require_examples(self.name, self.sizes)
        channels = self.channels or (1 if self.all_grey() else 3)
        self.shape = (channels, self.resize, self.resize)
        usual = GREY_IMAGENET if channels == 1 else IMAGENET
        mean, std = (
            given or by_default
            for given, by_default in zip((self.mean, self.std), usual, strict=True)
        )
        self.scale, self.shift = affine(
            mean, std, torch.empty(0, channels, 0, 0, dtype=torch.uint8)
        )
        random = [
            v2.RandomResizedCrop(self.resize, antialias=True),
            v2.RandomHorizontalFlip(0.5 if self.flip else 0.0),
        ]
        centre = [
            v2.Resize(round(self.resize * 256 / 224), antialias=True),
            v2.CenterCrop(self.resize),
        ]
        self.random, self.centre = (
            v2.Compose([*steps, v2.PILToTensor()]) for steps in (random, centre)
        )

    def all_grey(self) -> bool:
        """Whether all images are grey. Reads their headers, up to the first that is not."""
        used = np.concatenate([part.positions for part in self.parts.values()])
        return all(is_grey(self.root / self.names[position]) for position in used)

    def to(self, device: torch.device) -> Stream:
        moved = copy.copy(self)
        moved.scale, moved.shift = self.scale.to(device), self.shift.to(device)
        return moved

    def train_batches(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Batches:
        steps = self.steps_per_epoch(batch_size)
        order = generator(EPOCH, seed, epoch).permutation(self.sizes["train"])
        chosen = (
            order[step * batch_size : (step + 1) * batch_size] for step in range(start, steps)
        )
        keys = ([(seed, epoch, int(i)) for i in batch] for batch in chosen)
        return self.batches("train", self.random, keys)

    def eval_batches(self, split: str, batch_size: int = 1024) -> Batches:
        return self.plain_batches(split, np.arange(self.sizes[split]), batch_size)

    def sample(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        return next(self.plain_batches("train", self.choose(n, seed), n))

    def plain_batches(self, split: str, chosen: np.ndarray, batch_size: int) -> Batches:
        firsts = range(0, len(chosen), batch_size)
        keys = ([(0, 0, int(i)) for i in chosen[first : first + batch_size]] for first in firsts)
        return self.batches(split, self.centre, keys)

    def batches(self, split: str, transform: v2.Transform, keys: Iterable[list[Key]]) -> Batches:
        device = self.scale.device
        loader = DataLoader(
            Items(self.root, self.names, self.parts[split], transform, self.shape[0]),
            batch_sampler=keys,
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=device.type == "cuda",
            # Without a generator, the DataLoader draws the workers' seed from the global one.
            generator=torch.Generator(),
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            images, labels = (t.to(device, non_blocking=True) for t in batch)
            yield images.to(torch.float32).mul_(self.scale).add_(self.shift), labels


@dataclass
class Items(Dataset):
    """The transformed images of a split. All randomness of an item depends on its key alone, not on
    the worker."""

    root: Path
    names: list[str]
    part: Split
    transform: Callable[[Image.Image], Tensor]
    channels: int

    def __getitem__(self, key: Key) -> tuple[Tensor, int] | UserError:
        """A uint8 image (C, H, W) and its label. A UserError is returned: raised in a worker, its
        message would be buried in a traceback."""
        file = self.root / self.names[self.part.positions[key[2]]]
        try:
            with reading(file, *UNREADABLE):
                image = decode(file, None, self.channels)
            if image.mode == "F":
                raise UserError(
                    f"{file} is deeper than 8 bits, and such images are scaled by the range of all "
                    "images. Use dataset.in_memory=true, which finds that range, or convert them "
                    "to 8 bits."
                )
        except UserError as error:
            return error
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed GPUs as well, and fork_rng(devices=[]) does not restore
            # theirs.
            torch.default_generator.manual_seed(int(generator(ITEM, *key).integers(2**63)))
            return self.transform(image), int(self.part.labels[key[2]])


def collate(items: list[tuple[Tensor, int] | UserError]) -> tuple[Tensor, Tensor] | UserError:
    """A batch, or the first error in it."""
    images, labels = [], []
    for item in items:
        if isinstance(item, UserError):
            return item
        images.append(item[0])
        labels.append(item[1])
    return torch.stack(images), torch.tensor(labels)
