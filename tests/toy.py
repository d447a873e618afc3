"""A problem that trains in milliseconds (`dimred check` uses it, too), and ways to look on and to
break off."""

from collections.abc import Callable

from dimred.conformance.toy import RECIPE, Blobs, model, set_up
from dimred.training.loop import Train

__all__ = ["RECIPE", "Blobs", "Crash", "Fragile", "model", "set_up", "watch"]


def watch(train: Train, see: Callable[[int], None]) -> None:
    """Call see(t) at the end of every step t."""
    descend = train._descend

    def seen(t: int) -> None:
        descend(t)
        see(t)

    train._descend = seen  # type: ignore[method-assign]


class Crash(Exception):
    pass


class Fragile(Train):
    """Saves after every third step and crashes before its `last` one is taken."""

    last = -1

    def _save_checkpoint(self, call: int, t: int) -> None:
        if self.steps_done % 3 == 0:
            super()._save_checkpoint(call, t)

    def _descend(self, t: int) -> None:
        if self.steps_done == self.last:
            raise Crash
        super()._descend(t)
