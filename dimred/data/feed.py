"""The batches of training steps, in tensors that stay where they are.

A CUDA graph replays a step on the storages of the step that was captured. So a step asks its feed
for the batch, and the feed moves to the next one outside of the step:

    for _ in feed.steps(seed, epoch):
        images, labels = feed.batch()
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from dimred.data.share import WHOLE, Share

if TYPE_CHECKING:
    from dimred.data.base import Source


class Feed:
    """The batches of `data.train_batches`, or a share of each.

    fixed: `batch` executes the same operations on the same storages in every step. That costs a
    copy of the batch here, so it is asked for where steps are captured.
    """

    def __init__(self, data: Source, batch_size: int, fixed: bool, share: Share = WHOLE) -> None:
        self.data, self.batch_size, self.fixed, self.share = data, batch_size, fixed, share
        self._now: tuple[Tensor, Tensor] | None = None

    def steps(self, seed: int, epoch: int, start: int = 0) -> Iterator[None]:
        """Move through the batches of an epoch, from batch `start` on."""
        batches = self.data.train_shares(self.share, self.batch_size, seed, epoch, start)
        for images, labels in batches:
            if self.fixed and self._now:
                for held, fresh in zip(self._now, (images, labels), strict=True):
                    held.copy_(fresh, non_blocking=True)
            elif self.fixed:  # copies, because batches may be views of the data
                self._now = images.clone(), labels.clone()
            else:
                self._now = images, labels
            yield

    def batch(self) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) and labels (N,) of the present step."""
        assert self._now, "feed.steps moves to the first batch"
        return self._now
