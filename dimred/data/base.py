"""The interface of a data set: batches of an epoch, evaluation batches, samples for scoring."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dimred.data.augmentation import Augmentation
from dimred.data.feed import Feed
from dimred.data.share import WHOLE, Share
from dimred.errors import UserError, counted

log = logging.getLogger(__name__)

Batches = Iterator[tuple[Tensor, Tensor]]

# Purposes of random draws, the first number of every key: the order of an epoch and the sample of
# SNIP are independent.
EPOCH, SAMPLE, SPLIT, ITEM, COPY, MIX = range(1, 7)


class Source(ABC):
    """Where training and evaluation take their batches from: inputs of a model, and labels.

    All random choices are pure functions of the arguments. torch's global random state is neither
    used nor changed."""

    name: str  # as reported, e.g. "CIFAR-10-JPEG"
    sizes: dict[str, int]  # examples in "train", "val" and "test"

    def steps_per_epoch(self, batch_size: int) -> int:
        """Whole batches in an epoch. UserError unless 1 <= batch_size <= sizes["train"].

        The last, incomplete batch is dropped. So every step averages over the same number of
        examples, and BatchNorm never gets a batch of one. The order changes with the epoch, so
        different examples are left out each time."""
        examples = self.sizes["train"]
        if not 1 <= batch_size <= examples:
            raise UserError(
                f"Got a batch size of {batch_size}; {self.name} has "
                f"{counted(examples, 'training example')}, so 1 to {examples} is allowed. Choose "
                "a smaller batch, or hold out fewer examples (dataset.val_fraction)."
            )
        return examples // batch_size

    @abstractmethod
    def train_batches(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Batches:
        """Normalised, augmented float32 images (N, C, H, W) and int64 labels (N,) of one epoch,
        from batch `start` on.

        Order and augmentation depend on (seed, epoch) and an example's position alone: starting at
        k gives the same bits as skipping k batches. UserError as in `steps_per_epoch`."""

    def train_shares(
        self, share: Share, batch_size: int, seed: int, epoch: int, start: int = 0
    ) -> Batches:
        """The share of every batch of `train_batches`. Override it where the rest of a batch need
        not be read."""
        for images, labels in self.train_batches(batch_size, seed, epoch, start):
            part = share.of(len(labels))
            yield images[part], labels[part]

    def feed(self, batch_size: int, fixed: bool = False, share: Share = WHOLE) -> Feed:
        """The same batches, or a share of each, for a training step, which may be captured if they
        are `fixed`; see feed.py."""
        return Feed(self, batch_size, fixed, share)

    @abstractmethod
    def eval_batches(self, split: str, batch_size: int = 1024) -> Batches:
        """Every example of "train", "val" or "test" exactly once, in order, normalised and not
        augmented."""

    def stored_batches(self, seed: int, batch_size: int = 1024) -> Batches:
        """All inputs that training can use, if they can be stored (see Data.stored_copies): copy by
        copy, each in the order of the split."""
        return self.eval_batches("train", batch_size)

    def eval_shares(self, share: Share, split: str) -> Batches:
        """A share of the examples of `eval_batches`, in batches of which none is empty."""
        for images, labels in self.eval_batches(split):
            part = share.of(len(labels))
            if part.start < part.stop:
                yield images[part], labels[part]


class Data(Source):
    """A classification data set with a train, a val and a test split."""

    classes: int
    shape: tuple[int, ...]  # of one input: (channels, height, width) of images, or another
    #: files and folders that have no published checksum and are not named by the configuration; the
    #: run records their fingerprints
    read_from: tuple[Path, ...] = ()
    #: augmented copies of each training image; None augments anew in every epoch
    copies: int | None = None
    #: of training images, besides crops and flips
    more: Augmentation = Augmentation()

    @abstractmethod
    def to(self, device: torch.device) -> Data:
        """The same data with its batches on `device`."""

    def with_copies(self, copies: int) -> Data:
        """The same data with so many augmented copies of each training image. A copy is a function
        of (seed, number of the copy, position of the image), and training uses the copies in turn,
        one an epoch. UserError for data that cannot do so."""
        raise UserError(
            f"{self.name} has no augmented copies{self._why_none}. Set recipe.augmented_copies=null"
        )

    def with_augmentation(self, more: Augmentation) -> Data:
        """The same data with more augmentation of training images. UserError for data that cannot
        do so."""
        raise UserError(
            f"{self.name} cannot be augmented{self._why_none}. Set recipe.augment=none and "
            "recipe.erasing=0"
        )

    @property
    def _why_none(self) -> str:
        if len(self.shape) != 3:
            return ": its inputs are no images"
        return f": {type(self).__name__} does not implement that"

    # -- training examples that can be stored --------------------
    @property
    def stored_copies(self) -> int:
        """How many different inputs an example of the train split is in all epochs: 1 without
        augmentation; 0 if there is no end of them."""
        return 0

    def stored_order(self, seed: int, epoch: int) -> Tensor:
        """The examples (n,) of an epoch, in the order of training, by their places in
        `stored_batches`."""
        raise NotImplementedError

    @abstractmethod
    def sample(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """`n` different training examples, normalised and not augmented, chosen by `seed` alone.

        UserError unless 1 <= n <= sizes["train"].
        """

    def choose(self, n: int, seed: int) -> np.ndarray:
        """Positions (n,) in the train split of the examples that `sample` returns."""
        if not 1 <= n <= self.sizes["train"]:
            raise UserError(
                f"Asked for a sample of {counted(n, 'training example')}; {self.name} has "
                f"{self.sizes['train']}. Ask for fewer."
            )
        return generator(SAMPLE, seed).choice(self.sizes["train"], n, replace=False)


def generator(*key: int) -> np.random.Generator:
    """A random generator that depends on the key (non-negative integers) and on nothing else."""
    return np.random.default_rng(key)


def held_out(labels: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions to keep and positions to hold out, both sorted. They are the same in every run,
    independent of its seed.

    Goes through the examples class by class, in random order within a class, and holds one out
    whenever the running sum of `fraction` reaches the next whole number. So round(fraction * n) are
    held out in all, and fraction * n_c +- 1 of a class. UserError if none would be left."""
    n = len(labels)
    walk = np.lexsort((generator(SPLIT).random(n), labels))
    quota = np.floor(np.arange(n + 1) * fraction + 0.5)
    held = walk[np.diff(quota) > 0]
    if len(held) == n:
        raise UserError(
            f"dataset.val_fraction={fraction} holds out every training example ({n}) and leaves "
            "none to train on. Choose a smaller fraction, such as 0.1."
        )
    kept = np.ones(n, bool)
    kept[held] = False
    return np.flatnonzero(kept), np.sort(held)


def require_examples(name: str, sizes: dict[str, int]) -> None:
    """UserError if there are no training or no test examples: every run needs both."""
    for split in ("train", "test"):
        if not sizes[split]:
            listed = ", ".join(f"{count} {each}" for each, count in sizes.items())
            raise UserError(
                f"{name} has no {split} examples ({listed}); at least one of each is needed. Add "
                "some, or move some there."
            )


def log_notes(name: str, notes: list[str]) -> None:
    """Warn of decisions about a data set."""
    for note in notes:
        log.warning("%s: %s", name, note)


def require_range(**options: tuple[float | None, float, float]) -> None:
    """UserError unless low <= value < high, for every option name=(value, low, high). A value of
    None is allowed."""
    for name, (value, low, high) in options.items():
        if value is not None and not low <= value < high:
            raise UserError(f"Got dataset.{name}={value}; allowed is {low} <= {name} < {high}.")
