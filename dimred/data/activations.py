"""Activations of a data set's examples, computed once and stored, in memory or in a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dimred.data.base import Batches, Data, Source

Compute = Callable[[Tensor], Tensor]


class Activations(Source):
    """What `compute` makes of the examples of `data`, in the order of training and of evaluation.

    source: gives the inputs of `compute`: the data, or other activations.
    seed: of the training, on which augmented copies depend.
    folder: where files with the activations are made; None keeps them in memory. OSError if the
    disk has no room for them.
    Batches are computed as evaluation does, so in evaluation the activations have the bits that
    they would have there."""

    def __init__(
        self,
        data: Data,
        source: Source,
        compute: Compute,
        seed: int = 0,
        folder: Path | None = None,
    ) -> None:
        self.data, self.name, self.sizes, self.folder = data, data.name, data.sizes, folder
        size = data.stored_copies * data.sizes["train"]
        self._train = self._stored(source.stored_batches(seed), compute, size)
        self._plain = {} if data.copies else {"train": self._train}
        for split, size in data.sizes.items():
            if size and split not in self._plain:
                self._plain[split] = self._stored(source.eval_batches(split), compute, size)

    def _stored(self, batches: Batches, compute: Compute, size: int) -> tuple[Tensor, Tensor]:
        stored: Tensor | None = None
        labels = []
        at = 0
        for inputs, answers in batches:
            made = compute(inputs)
            if stored is None:
                stored = room_for(made, size, self.folder)
            stored[at : at + len(made)] = made
            labels.append(answers)
            at += len(made)
        assert stored is not None and at == size
        return stored, torch.cat(labels)

    def stored_batches(self, seed: int, batch_size: int = 1024) -> Batches:
        return self._in_order(self._train, batch_size)

    def train_batches(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Batches:
        steps = self.steps_per_epoch(batch_size)
        order = self.data.stored_order(seed, epoch)
        stored, labels = self._train
        for first in range(start * batch_size, steps * batch_size, batch_size):
            chosen = order[first : first + batch_size]
            answers = labels.index_select(0, chosen)
            yield rows(stored, chosen.to(stored.device)).to(labels.device), answers

    def eval_batches(self, split: str, batch_size: int = 1024) -> Batches:
        return self._in_order(self._plain[split], batch_size)

    def _in_order(self, part: tuple[Tensor, Tensor], batch_size: int) -> Batches:
        stored, labels = part
        for first in range(0, len(labels), batch_size):
            at = slice(first, first + batch_size)
            # a copy, because a model may change its input
            yield stored[at].clone().to(labels.device), labels[at]


def count(data: Data) -> int:
    """The number of examples that are stored."""
    plain = sum(data.sizes.values())
    # without augmented copies, training and evaluation have the same inputs
    return plain + data.stored_copies * data.sizes["train"] if data.copies else plain


def room_for(example: Tensor, size: int, folder: Path | None) -> Tensor:
    """A tensor for so many activations like those of a batch, in their layout."""
    shape = (size, *example.shape[1:])
    if not is_channels_last(example):
        return empty(shape, example, folder)
    channels, height, width = example.shape[1:]
    return empty((size, height, width, channels), example, folder).permute(0, 3, 1, 2)


def empty(shape: tuple[int, ...], like: Tensor, folder: Path | None) -> Tensor:
    if folder is None:
        return like.new_empty(shape)
    count = torch.Size(shape).numel()
    # the file has no name any more when it is used, so it vanishes with the process
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".activations-") as file:
        reserve(file.fileno(), count * like.element_size())
        mapped = torch.from_file(file.name, shared=True, size=count, dtype=like.dtype)
    return mapped.view(shape)


def reserve(file: int, size: int) -> None:
    """Take the room on the disk now: a mapped file that runs out of it ends the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.ftruncate(file, size)


def is_channels_last(tensor: Tensor) -> bool:
    """Whether a tensor is in this layout, and in no other."""
    if tensor.dim() != 4 or tensor.is_contiguous():
        return False
    return tensor.is_contiguous(memory_format=torch.channels_last)


def rows(stored: Tensor, index: Tensor) -> Tensor:
    """stored[index], in the layout of `stored`."""
    if is_channels_last(stored):
        return stored.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
    return stored.index_select(0, index)
