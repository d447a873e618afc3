"""One run on several processes, called ranks: each computes its share of every batch.

All ranks build the same net, run the same method and take the same steps. They know the whole
batch's order and random numbers, so nothing but sums is exchanged: the gradients of what is trained
in every step, and sums of losses where these are read. Scores are computed by every rank on the
whole sample, which gives all of them the same bits. That their nets are the same is compared.
Rank 0 writes; only its result is kept.

The methods of `Ranks` are those of a run on one process, and do next to nothing. group.py is a run
on several.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor

from dimred.data.share import WHOLE
from dimred.net import Net
from dimred.training.recipe import Recipe


class Ranks:
    """The only process of a run."""

    share = WHOLE

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.share.rank == 0

    def require_possible(self, recipe: Recipe) -> None:
        """UserError for a recipe that so many ranks cannot follow."""

    def wait(self) -> None:
        """Wait for all ranks."""

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """A block that rank 0 is through before the others begin."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def synchronises(self, recipe: Recipe) -> bool:
        """Whether norms use the statistics of the batches of several ranks."""
        return recipe.sync_batchnorm and self.share.size > 1

    # -- sums --------------------
    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks."""

    def gather(self, values: Tensor) -> Tensor:
        """The values (n) of all ranks, as rows."""
        return values[None]

    def part_of_loss(self, loss: Tensor, batch_size: int) -> Tensor:
        """What the mean loss of a share adds to that of the whole batch."""
        return loss

    def shares(self, net: Net, seed: int, step: int) -> AbstractContextManager[None]:
        """A block that computes the gradients of a share. After it they are those of the whole
        batch, and buffers those of rank 0.

        Within it, each rank has random numbers of its own, for the dropout of its share."""
        return nullcontext()

    # -- decisions --------------------
    def agree(self, stop: int, save: bool) -> tuple[int, bool]:
        """Whether to stop, by which signal, and whether to save: what one rank wants, all do."""
        return stop, save

    def require_same(self, values: Mapping[str, int], what: str) -> None:
        """UserError, naming rank and key, unless the values of all ranks are the same."""

    def require_same_net(self, net: Net, changed: bool = True) -> None:
        """UserError unless all ranks train the same weights, of the same values.

        changed: whether to compare, though supports have not changed since the last time."""

    def report(self, recipe: Recipe) -> dict[str, Any]:
        """What result.json says of a run on several processes."""
        return {}

    def state(self) -> dict[str, int]:
        """For a checkpoint, as JSON."""
        return {}

    def load(self, state: Mapping[str, int]) -> None:
        pass


#: a run on one process
ALONE = Ranks()
