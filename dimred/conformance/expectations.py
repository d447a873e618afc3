"""Expectations of checks. One that fails raises AssertionError."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from dimred.conformance.make import Make
from dimred.conformance.observe import WatchedNet, outputs, trained
from dimred.errors import UserError


class NotApplicable(Exception):
    """The method makes no such promise, with the reason."""


def needs(make: Make, field: str) -> None:
    if not make.has(field):
        raise NotApplicable(f"it has no {field}")


def expect_count(net: WatchedNet, sparsity: float, more: str = "") -> None:
    """A kept weight is trained or, where transforms were merged, nonzero: both numbers are sizes of
    supports. Biases, norms and parameters of transforms and bases do not count."""
    left, total = round((1 - sparsity) * net.total), net.total
    assert trained(net) == left, (
        f"sparsity {sparsity}{more} must leave {left} of {total} weights, not {trained(net)}"
    )


def expect_finite(net: WatchedNet, what: str) -> None:
    assert outputs(net).isfinite().all(), f"the logits {what} are not finite"


def expect_advice(error: UserError) -> None:
    """An error has to name a way out: a model, a key or the largest sparsity."""
    words = ("model=", "sparsity", "method.", "recipe.", "allocation", "include", "exclude")
    assert any(word in str(error) for word in words), f"this error does not say what to do: {error}"


def expect_none(complaints: list[str], when: str) -> None:
    more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
    assert not complaints, f"{complaints[0]}, {when}{more}"


def first_difference(one: list[int], other: list[int]) -> str:
    if len(one) != len(other):
        return f"{len(one)} and {len(other)} steps"
    step = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    return f"{one[step]} and {other[step]} after step {step}"


@contextmanager
def captured_warnings() -> Iterator[list[str]]:
    """The warnings that dimred logs in the block; they are not printed."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    log = logging.getLogger("dimred")
    before, log.handlers = log.handlers, [Collector(logging.WARNING)]
    try:
        yield messages
    finally:
        log.handlers = before
