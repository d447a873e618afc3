"""The batches of training steps, and the examples of scores.

A step begins with images, plain or mixed, or with stored activations of layers that need not be
computed any more (skipped.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from dimred.data.base import Data
from dimred.data.feed import Feed
from dimred.data.share import Share
from dimred.errors import UserError, counted, require
from dimred.training.skipped import Skipped
from dimred.training.step import Step

SCORING_EPOCH = 2**31 - 1  # of augmented examples: training never reaches it


class Batches:
    """The batches of a run; where several processes compute it, the share of this one. Their order
    is a function of the seed and the epoch.

    skipped: what steps need not compute, and so what they begin with.
    """

    def __init__(
        self, skipped: Skipped, batch_size: int, epoch_steps: int, seed: int, share: Share
    ) -> None:
        self.skipped, self.batch_size, self.epoch_steps = skipped, batch_size, epoch_steps
        self.seed, self.share = seed, share

    def feed(self, fixed: bool) -> Feed:
        """The feed of what steps begin with now. fixed: for steps that are captured."""
        return self.skipped.source.feed(self.batch_size, fixed, self.share)

    def steps(self, stepper: Step, start: int, stop: int, whole: bool) -> Iterator[int]:
        """Yield the steps, with the stepper's feed at the batch of each.

        whole: all of the model is computed, because a method uses the gradients of all weights."""
        t = start
        while t < stop:
            self._follow(stepper, whole)
            epoch, first = divmod(t, self.epoch_steps)
            for _ in stepper.feed.steps(self.seed, epoch, first):
                yield t
                t += 1
                if t == stop:
                    return
                # at the pause, the method may have frozen layers or removed channels
                if self._follow(stepper, whole):
                    break

    def _follow(self, stepper: Step, whole: bool) -> bool:
        """Let steps compute no more of the model than the present net needs; whether that is
        another part than before."""
        if not self.skipped.changed(whole):
            return False
        stepper.feed, stepper.part = self.feed(stepper.feed.fixed), self.skipped.part
        return True


def scoring_examples(data: Data, count: int, seed: int, augment: bool) -> tuple[Tensor, Tensor]:
    """So many training examples, always the same. UserError, naming method.examples, if there are
    fewer."""
    require(count > 0, "method.examples", count, "1 or more")
    available = data.sizes["train"]
    if count > available:
        raise UserError(
            f"method.examples={count} asks for a sample of {counted(count, 'training example')}; "
            f"{data.name} has {available}. Choose method.examples={available} or fewer"
        )
    if augment:
        return next(data.train_batches(count, seed, SCORING_EPOCH))
    return data.sample(count, seed)
