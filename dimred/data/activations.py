"""Activations of a data set's examples, computed once and kept in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dimred.data.base import Batches, Data, Source

Compute = Callable[[Tensor], Tensor]


class Activations(Source):
    """What `compute` makes of the examples of `data`, in the order of training and of evaluation.

    source: gives the inputs of `compute`: the data, or other activations.
    Batches are computed as evaluation does, so in evaluation the activations have the bits that
    they would have there."""

    def __init__(self, data: Data, source: Source, compute: Compute) -> None:
        self.data, self.name, self.sizes = data, data.name, data.sizes
        self._splits = {
            split: self._stored(source.eval_batches(split), compute, size)
            for split, size in data.sizes.items()
            if size
        }

    def _stored(self, batches: Batches, compute: Compute, size: int) -> tuple[Tensor, Tensor]:
        stored: Tensor | None = None
        labels = []
        at = 0
        for inputs, answers in batches:
            made = compute(inputs)
            if stored is None:
                stored = made.new_empty((size, *made.shape[1:]))
                if is_channels_last(made):
                    stored = stored.to(memory_format=torch.channels_last)
            stored[at : at + len(made)] = made
            labels.append(answers)
            at += len(made)
        assert stored is not None and at == size
        return stored, torch.cat(labels)

    def train_batches(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Batches:
        steps = self.steps_per_epoch(batch_size)
        order = self.data.plain_order(seed, epoch)
        assert order is not None
        stored, labels = self._splits["train"]
        for first in range(start * batch_size, steps * batch_size, batch_size):
            chosen = order[first : first + batch_size]
            yield rows(stored, chosen), labels.index_select(0, chosen)

    def eval_batches(self, split: str, batch_size: int = 1024) -> Batches:
        stored, labels = self._splits[split]
        for first in range(0, len(labels), batch_size):
            at = slice(first, first + batch_size)
            # a copy, because a model may change its input
            yield stored[at].clone(), labels[at]


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
