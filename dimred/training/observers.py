"""The seam for tests and tools: observers of training steps.

    class Norms(Observer):
        def after_update(self, train: Train, step: int) -> None:
            print(step, sum(float(p.norm()) for p in train.net.parameters().values()))

    train.observers.append(Norms())

An observer may change the net, as a method may at its pause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dimred.training.loop import Train


class Observer:
    """Override what you need. The calls are listed in the order in which a step makes them."""

    def before_step(self, train: Train, step: int) -> None:
        """Gradients are those of the last step, and the batch has not been seen."""

    def after_backward(self, train: Train, step: int) -> None:
        """Gradients are there; the method has not had its pause."""

    def before_update(self, train: Train, step: int) -> None:
        """The method's pause is over; the optimiser has not stepped."""

    def after_update(self, train: Train, step: int) -> None:
        """The optimiser has stepped; nothing has been evaluated or saved."""

    def after_evaluation(self, train: Train, line: Mapping[str, Any]) -> None:
        """An epoch or a training phase is over; `line` is what metrics.jsonl gets."""
