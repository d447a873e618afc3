"""Images per second of the training input: dimred's batches against a DataLoader with torchvision's
transforms.

Both give shuffled, augmented, normalised float32 batches of 128 on the CPU. The DataLoader reads
PIL images made from arrays, as torchvision's CIFAR10 and MNIST do; the better of 0 and 2 workers
counts. The implementations are timed in turn, so that other load on the machine affects all of
them; the figures are medians over the rounds. dimred gets one thread: with more, any other load
makes OpenMP wait for a time slice per operation, which can take a hundred times as long."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from dimred.data.memory import Examples, Memory

BATCH, ROUNDS, SECONDS = 128, 5, 1.0


@dataclass
class Pictures(Dataset):
    """As torchvision's small data sets: an array, one PIL image made per item."""

    arrays: np.ndarray
    transform: Callable[[Image.Image], torch.Tensor]

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[i])), 0


@dataclass(kw_only=True)
class Noise(Memory):
    """The same arrays as a data set of dimred."""

    arrays: np.ndarray

    name = "noise"

    def read(self) -> tuple[Examples, Examples]:
        images = torch.from_numpy(self.arrays)
        images = images.permute(0, 3, 1, 2).contiguous() if images.ndim == 4 else images[:, None]
        both = Examples(images, torch.zeros(len(images), dtype=torch.int64))
        return both, both


def torchvision_epochs(pictures: Pictures, workers: int) -> Iterator[Any]:
    loader = DataLoader(pictures, BATCH, shuffle=True, drop_last=True, num_workers=workers)
    return itertools.chain.from_iterable(loader for _ in itertools.count())


def dimred_epochs(data: Memory) -> Iterator[Any]:
    return itertools.chain.from_iterable(
        data.train_batches(BATCH, 0, epoch) for epoch in itertools.count()
    )


def rate(batches: Iterator[Any]) -> float:
    """Images per second, once the pipeline has delivered its first batches."""
    for _ in range(5):
        next(batches)
    start, images = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < SECONDS:
        next(batches)
        images += BATCH
    return images / elapsed


def contest(arrays: np.ndarray, augment: bool) -> tuple[float, float]:
    """Median images per second of the better DataLoader and of dimred."""
    channels = arrays.shape[3] if arrays.ndim == 4 else 1
    random = (
        [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()] if augment else []
    )
    to_tensor = [transforms.ToTensor(), transforms.Normalize([0.5] * channels, [0.25] * channels)]
    pictures = Pictures(arrays, transforms.Compose([*random, *to_tensor]))
    data = Noise(
        arrays=arrays, val_fraction=0.0, resize=None, mean=[0.5] * channels, std=[0.25] * channels,
        crop_padding=4 if augment else 0, flip=augment,
    )  # fmt: skip
    rates: list[list[float]] = [[], [], []]
    for _ in range(ROUNDS):
        for results, batches in zip(
            rates,
            (torchvision_epochs(pictures, 0), torchvision_epochs(pictures, 2), dimred_epochs(data)),
            strict=True,
        ):
            results.append(rate(batches))
    here, workers, ours = map(median, rates)
    return max(here, workers), ours


def rows() -> list[tuple[str, ...]]:
    """A header and one row per shape of data."""
    torch.set_num_threads(1)
    noise = np.random.default_rng(0)
    cifar = noise.integers(0, 256, (50_000, 32, 32, 3), np.uint8)
    mnist = noise.integers(0, 256, (60_000, 28, 28), np.uint8)
    table: list[tuple[str, ...]] = [("data", "DataLoader images/s", "dimred images/s", "ratio")]
    for name, arrays, augment in (("CIFAR, crop + flip", cifar, True), ("MNIST", mnist, False)):
        theirs, ours = contest(arrays, augment)
        table.append((name, f"{theirs:,.0f}", f"{ours:,.0f}", f"{ours / theirs:.0f}x"))
    return table


if __name__ == "__main__":
    for row in rows():
        print("  ".join(f"{cell:>20}" for cell in row))
