"""Early stopping: the end of a training phase that no longer improves.

Only a phase that trains to the last step without pauses of the method may end early: the network
after it is as the method wants it. A phase that ends at a certain step (the one to rewind to, say)
takes all of its steps, and so does one with pauses, at which the method changes the network.
"""

from __future__ import annotations

import logging

from dimred.data.base import Data
from dimred.errors import counted, require
from dimred.training.evaluate import Best
from dimred.training.recipe import Recipe

log = logging.getLogger(__name__)


class Patience:
    """Counts the evaluations, one an epoch, without a better validation accuracy.

    The count is in `best`, and so in checkpoints."""

    def __init__(self, recipe: Recipe, data: Data, best: Best) -> None:
        require(
            recipe.patience is None or data.sizes["val"] > 0,
            "recipe.patience",
            recipe.patience,
            "null without a validation split; dataset.val_fraction=0.1 makes one",
        )
        self.epochs, self.best = recipe.patience, best
        self._applies = self._told = False

    def begin_phase(self, to_the_end: bool, pauses: bool) -> None:
        """Before a checkpoint of this phase is loaded."""
        self.best.since = 0
        self._applies = self.epochs is not None and to_the_end and not pauses
        if self.epochs and to_the_end and pauses and not self._told:
            self._told = True
            log.warning(
                "recipe.patience=%d does not end this training early: the method may change the "
                "network at any step",
                self.epochs,
            )

    def is_lost(self, step: int) -> bool:
        """Whether the phase ends before this step."""
        if not self._applies or self.epochs is None or self.best.since < self.epochs:
            return False
        log.info(
            "this training ends at step %d: no better validation accuracy in %s",
            *(step, counted(self.epochs, "epoch")),
        )
        return True
