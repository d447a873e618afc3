"""The method under test, built at any sparsity, with fields small enough for trainings of 20
steps."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

from dimred.methods.base import Method
from dimred.runs.build import build

#: the largest value of whole numbers (intervals, rounds, repetitions): a training has 20 steps
LARGEST = 5
#: the largest value of whole numbers that count examples: a batch has 16
EXAMPLES = {"examples": 32, "transfer_batch_size": 32}
#: the bounds of fractions, and of amounts of work
AT_LEAST, AT_MOST = {"prune_rate": 0.5}, {"epochs": 1.0}
SPARSITY = 0.6


class Make:
    """make(sparsity=0.9) is the method of `dimred train method=NAME sparsity=0.9`, with smaller
    fields, unless they are `given`: a whole number above 5 becomes 5 (above 32, if it counts
    examples), a `prune_rate` below 0.5 becomes 0.5, and `epochs` above 1 becomes 1.

    cfg: the configuration that `dimred train method=NAME` composes; it is copied.
    """

    def __init__(self, name: str, cfg: Any, given: Collection[str] = ()) -> None:
        self.name, self._cfg = name, copy.deepcopy(cfg)
        self._cfg.sparsity = SPARSITY
        for key, value in self._cfg.method.items():
            if key not in given and quick(key, value) != value:
                self._cfg.method[key] = quick(key, value)

    def __call__(self, **changes: Any) -> Method:
        """The method, with other values of its fields, or of keys outside of its group (sparsity,
        allocation)."""
        cfg = copy.deepcopy(self._cfg) if changes else self._cfg
        for key, value in changes.items():
            (cfg if key in cfg else cfg.method)[key] = value
        return build(cfg.method, "method")

    def basis(self) -> Any:
        """The basis of `dimred train basis=NAME`; None for basis=none."""
        return build(self._cfg.basis, "basis") if self._cfg.basis else None

    def has(self, field: str) -> bool:
        return field in self._cfg.method


def quick(key: str, value: Any) -> Any:
    """A field's value that makes a training short."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if key in AT_MOST or isinstance(value, int):
        return min(value, AT_MOST.get(key, EXAMPLES.get(key, LARGEST)))
    return max(value, AT_LEAST.get(key, value))
