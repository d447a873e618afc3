"""Trainings of the method under test. Those that several checks look at run once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import Any

from dimred.conformance.expectations import expect_advice
from dimred.conformance.make import Make
from dimred.conformance.observe import WatchedNet, run
from dimred.conformance.toy import NETS, other_coverings
from dimred.errors import UserError
from dimred.methods.base import Method
from dimred.methods.reference_networks import Dense


def observe(make: Make, optimizer: str = "sgd", seed: int = 0) -> WatchedNet:
    """The net after one whole training, which several checks share."""
    return observed(make, trainable_kind(make), optimizer, seed)


@lru_cache(maxsize=8)
def observed(make: Make, kind: str, optimizer: str = "sgd", seed: int = 0) -> WatchedNet:
    return train(make, kind, seed=seed, optimizer=optimizer)


@lru_cache(maxsize=1)
def short_trainings(make: Make) -> list[tuple[str, WatchedNet]]:
    """The nets after trainings of 1 to 3 steps, too few for a method's periodic updates."""
    return list(
        accepted(
            (f"recipe.steps={steps}", partial(train, make, steps=steps)) for steps in (1, 2, 3)
        )
    )


@lru_cache(maxsize=1)
def coverings(make: Make) -> list[tuple[str, WatchedNet]]:
    """The nets after trainings with other parameters covered."""
    kind = trainable_kind(make)
    return list(
        accepted(
            (f"{what} covered", partial(train, make, include=names, steps=10))
            for what, names in other_coverings(NETS[kind]()).items()
        )
    )


def accepted(
    trainings: Iterable[tuple[str, Callable[[], WatchedNet]]],
) -> Iterator[tuple[str, WatchedNet]]:
    """The trainings that the method accepts. If it refuses one, its error has to say what to do."""
    for what, training in trainings:
        try:
            yield what, training()
        except UserError as error:
            expect_advice(error)


@lru_cache(maxsize=1)
def trainable_kind(make: Make) -> str:
    """The first kind of net that the method can train. NoTrainableNet if there is none."""
    errors = []
    for kind in NETS:
        try:
            observed(make, kind, "sgd", 0)
            return kind
        except UserError as error:
            errors.append(str(error))
    raise NoTrainableNet(f"it trains none of the toy nets. {'; '.join(dict.fromkeys(errors))}")


class NoTrainableNet(AssertionError):
    """The method trains none of the toy nets, so no check can run."""


def train(make: Make, kind: str = "", method: Method | None = None, **how: Any) -> WatchedNet:
    """Train a toy net; `how` has values of the method's fields and arguments of `run`."""
    fields = {key: how.pop(key) for key in ("sparsity", "allocation") if key in how}
    return run(method or make(**fields), kind or trainable_kind(make), make.basis(), **how)


@lru_cache(maxsize=1)
def dense(make: Make) -> WatchedNet:
    return train(make, method=Dense())
