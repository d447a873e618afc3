"""Observers of training steps, for tests and tools.

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
    """Override the calls that you need. They are listed in the order in which a step makes them."""

    def before_step(self, train: Train, step: int) -> None:
        """Before the forward pass: gradients are still those of the previous step."""

    def after_backward(self, train: Train, step: int) -> None:
        """After the backward pass and before the method's pause: gradients are those of this
        step."""

    def before_update(self, train: Train, step: int) -> None:
        """After the method's pause and before the optimiser's step."""

    def after_update(self, train: Train, step: int) -> None:
        """After the optimiser's step, before any evaluation or checkpoint."""

    def after_evaluation(self, train: Train, line: Mapping[str, Any]) -> None:
        """At the end of an epoch or a training phase; `line` is the line for metrics.jsonl."""


class Observers(list[Observer], Observer):
    """Observers that are called one after the other."""

    def before_step(self, train: Train, step: int) -> None:
        for each in self:
            each.before_step(train, step)

    def after_backward(self, train: Train, step: int) -> None:
        for each in self:
            each.after_backward(train, step)

    def before_update(self, train: Train, step: int) -> None:
        for each in self:
            each.before_update(train, step)

    def after_update(self, train: Train, step: int) -> None:
        for each in self:
            each.after_update(train, step)

    def after_evaluation(self, train: Train, line: Mapping[str, Any]) -> None:
        for each in self:
            each.after_evaluation(train, line)
