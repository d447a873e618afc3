"""A problem that trains in milliseconds (`dimred check` uses it, too), and observers of its
steps."""

from collections.abc import Callable
from typing import Any

from dimred.conformance.observe import Crash, save_every_third_step
from dimred.conformance.toy import RECIPE, Blobs, model, set_up
from dimred.methods.base import Method
from dimred.net import Net
from dimred.training.loop import Train
from dimred.training.observers import Observer

__all__ = ["RECIPE", "Blobs", "Crash", "Fragile", "model", "set_up", "trained", "watch"]


def trained(method: Method, **recipe: Any) -> Net:
    """The toy net after a training by the method."""
    net, train = set_up(**recipe)
    method.run(net, train)
    return net


def watch(train: Train, see: Callable[[int], None], at: str = "after_update") -> None:
    """Call see(t) in every step t, by default at its end; at: the name of the observer's method."""
    observer = Observer()
    setattr(observer, at, lambda train, step: see(step))
    train.observers.append(observer)


class Fragile(Observer):
    """Saves after every third step and crashes before the step `last` is taken, counted over all
    training phases."""

    def __init__(self, last: int) -> None:
        self.last = last

    def before_update(self, train: Train, step: int) -> None:
        if train.steps_done == self.last:
            raise Crash

    def after_update(self, train: Train, step: int) -> None:
        save_every_third_step(train)
