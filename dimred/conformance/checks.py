"""What every method promises. A check runs the method on toy problems and raises AssertionError,
saying what was expected, or NotApplicable, saying why the method promises nothing of the kind."""

from __future__ import annotations

import logging
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dimred.conformance.make import SPARSITY, Make
from dimred.conformance.observe import (
    STEPS,
    Crash,
    WatchedNet,
    difference,
    logits,
    run,
    toy_net,
    trained,
)
from dimred.conformance.toy import NETS, other_covers
from dimred.errors import UserError
from dimred.methods.base import Method
from dimred.methods.reference_networks import Dense
from dimred.net.state import finished
from dimred.storage.folder import RunFolder

Check = Callable[[Make], None]


class NotApplicable(Exception):
    """The method promises nothing of the kind; why."""


def check_training(make: Make) -> None:
    """It trains, and for as many steps as a training has."""
    net = observe(make)
    steps = len(net.trace.counts)
    assert steps >= STEPS, f"it takes {steps} steps of {STEPS}"
    before = toy_net(home(make), make.basis())
    assert not torch.equal(outputs(net), outputs(before)), "the logits are those before training"


# -- counts --------------------
ALLOCATIONS = {
    name: {"_target_": f"dimred.select.allocate.{name}", **more}
    for name, more in (("Global", {}), ("Uniform", {}), ("ERK", {"power": 1.0}))
}


def check_exact_count(make: Make) -> None:
    """In the end round((1 - sparsity) * total) weights are kept; in every step as many, whatever
    the seed."""
    needs(make, "sparsity")
    seen = [observe(make).trace.counts, observe(make, seed=1).trace.counts]
    assert seen[0] == seen[1], (
        f"the number of trained weights depends on the seed: {first_difference(*seen)}"
    )
    expect_count(observe(make), SPARSITY)
    for sparsity, allocation in ((0.35, "Uniform"), (0.8, "Global"), (0.9, "ERK")):
        shared: dict[str, Any] = (
            {"allocation": ALLOCATIONS[allocation]} if make.has("allocation") else {}
        )
        try:
            net = train(make, sparsity=sparsity, **shared)
        except UserError as error:  # not every method can rank all layers together
            expect_advice(error)
            continue
        expect_count(net, sparsity, f" (allocation {allocation})")
    for where, net in [*short_trainings(make), *covers(make)]:
        expect_count(net, SPARSITY, f" ({where})")


def check_budget(make: Make) -> None:
    """In the end something is kept, and no more than the sparsity leaves."""
    needs(make, "sparsity")
    for where, net in [("as usual", observe(make)), *short_trainings(make), *covers(make)]:
        kept, budget = trained(net), round((1 - SPARSITY) * net.total)
        assert 0 < kept <= budget, f"{kept} weights are kept, of a budget of {budget} ({where})"


def check_sparsity_zero(make: Make) -> None:
    """With sparsity 0 it is dense training, to the bit."""
    needs(make, "sparsity")
    net = train(make, sparsity=0.0)
    expect_count(net, 0.0)
    name = difference(net.state_dict(), dense(make).state_dict())
    assert not name, f"with sparsity 0, {name} is not what dense training makes of it"


def check_extreme_sparsity(make: Make) -> None:
    """With next to nothing left it says so, by an error or a warning, or keeps some of every
    layer."""
    needs(make, "sparsity")
    for sparsity in (0.99, 0.9999):
        with said() as warnings:
            try:
                net = train(make, sparsity=sparsity)
            except UserError as error:
                expect_advice(error)
                continue
        empty = [name for name, value in net.effective_weights().items() if not value.any()]
        assert warnings or not empty, (
            f"at sparsity {sparsity}, {empty[0]} is all zero, and no warning said so"
        )
        expect_finite(net, f"at sparsity {sparsity}")


# -- coordinates --------------------
def check_frozen_weights(make: Make) -> None:
    """Weights that are not trained stay the same to the bit between changes of support."""
    for optimizer in ("sgd", "adam"):
        silent(observe(make, optimizer).trace.frozen, optimizer)


def check_optimizer_state(make: Make) -> None:
    """After a change of support, survivors keep their optimiser state, new weights have none."""
    for optimizer in ("sgd", "adam"):
        silent(observe(make, optimizer).trace.optimizer, optimizer)


def check_scoring(make: Make) -> None:
    """While nothing is trained, BatchNorm's statistics and the random state do not change."""
    for optimizer in ("sgd", "adam"):
        silent(observe(make, optimizer).trace.scoring, optimizer)


# -- repetition --------------------
def check_determinism(make: Make) -> None:
    """The same seed gives the same bits, whatever Python's and numpy's random states; another seed
    gives others."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    again = train(make).trace.state
    name = difference(observe(make).trace.state, again)
    assert not name, f"a second training with the same seed differs in {name}"
    assert difference(again, observe(make, seed=1).trace.state), (
        "training with another seed gives the same bits"
    )


def check_resume(make: Make) -> None:
    """After a crash at any step, the resumed run ends with the same bits and metrics."""
    for optimizer, every in (("sgd", 4), ("adam", 7)):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            with RunFolder(Path(one)) as folder:
                whole = train(make, folder=folder, optimizer=optimizer)
            steps = len(whole.trace.counts)
            for crash in (*range(1, steps, max(every, steps // 5)), -1):
                try:
                    with RunFolder(Path(other)) as again:
                        net = train(make, folder=again, crash=crash, optimizer=optimizer)
                except Crash:
                    continue
            reports = (
                folder.metrics.read_text().splitlines(),
                again.metrics.read_text().splitlines(),
            )
        name = difference(whole.trace.state, net.trace.state)
        assert not name, (
            f"resumed after crashes ({optimizer}), it ends with another {name} than uninterrupted"
        )
        for line, expected in zip(*reports, strict=True):
            assert line == expected, (
                f"resumed after crashes ({optimizer}), it reports {line}, uninterrupted {expected}"
            )


def check_saving(make: Make) -> None:
    """The saved net and the plain model of its state dict give the same logits, to the bit, and the
    saved net has the same numbers."""
    net = observe(make)
    expected = outputs(net)
    twin = toy_net(home(make), make.basis())
    state, _ = finished(net)  # without draws: these nets keep copies of their initial weights
    twin.load(state)
    advice = ": call net.keep(..., merge=True) at the end of run" if net.transforms else ""
    assert twin.dim == net.dim, (
        f"the net loaded from its state has dim {twin.dim} instead of {net.dim}{advice}"
    )
    assert torch.equal(outputs(twin), expected), (
        f"the net loaded from its state gives other logits{advice}"
    )
    plain = NETS[home(make)]()
    plain.load_state_dict(net.state_dict())
    assert torch.equal(logits(plain), expected), (
        "the plain model with net.state_dict() gives other logits"
    )


# -- where it works --------------------
def check_models(make: Make) -> None:
    """It trains conv nets, MLPs, residual, grouped, attention and partly frozen nets and nets with
    tied weights, or says what it needs; the plain model with its state dict computes the same."""
    for kind in NETS:
        try:
            net = train(make, kind, steps=10)
        except UserError as error:
            expect_advice(error)
            continue
        expect_finite(net, f"of the {kind} net")
        initial = net.initial()
        moved = [
            name
            for name in sorted(net.fixed)
            if not torch.equal(net.uncovered[name], initial[name])
        ]
        assert not moved, (
            f"{moved[0]}, which the {kind} net has frozen (requires_grad=False), has changed"
        )
        silent(net.trace.frozen + net.trace.optimizer, f"in the {kind} net")
        plain = NETS[kind]()
        plain.load_state_dict(net.state_dict())
        assert torch.allclose(logits(plain), outputs(net), atol=1e-5), (
            f"the plain {kind} net with net.state_dict() gives other logits"
        )


def check_covers(make: Make) -> None:
    """It trains where biases, norms or a single layer are covered, or says what it needs."""
    for where, net in covers(make):
        expect_finite(net, where)
        silent(net.trace.frozen + net.trace.optimizer, where)


def check_number_formats(make: Make) -> None:
    """It trains under bfloat16 autocast, with weights that stay float32, and in float64."""
    for dtype, bf16 in ((torch.float32, True), (torch.float64, False)):
        net = train(make, dtype=dtype, bf16=bf16)
        what = "under bf16 autocast" if bf16 else "in float64"
        wrong = [
            n for n, p in net.parameters().items() if p.is_floating_point() and p.dtype != dtype
        ]
        assert not wrong, f"{what}, {wrong[0]} has become {net.parameters()[wrong[0]].dtype}"
        expect_finite(net, what)
        silent(net.trace.frozen, what)
        if make.has("sparsity"):
            assert net.trace.counts == observe(make).trace.counts, (
                f"{what}, other numbers of weights are trained"
            )


def check_compile(make: Make) -> None:
    """Translated by torch.compile (without code generation), it gives the same bits."""
    name = difference(observe(make).trace.state, train(make, compiled=True).trace.state)
    assert not name, f"translated by torch.compile, it ends with another {name}"


CHECKS: dict[str, Check] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}


# -- what checks share --------------------
def observe(make: Make, optimizer: str = "sgd", seed: int = 0) -> WatchedNet:
    """The net after one whole training; several checks look at the same one."""
    return observed(make, home(make), optimizer, seed)


@lru_cache(maxsize=8)
def observed(make: Make, kind: str, optimizer: str = "sgd", seed: int = 0) -> WatchedNet:
    return train(make, kind, seed=seed, optimizer=optimizer)


@lru_cache(maxsize=1)
def short_trainings(make: Make) -> list[tuple[str, WatchedNet]]:
    """The nets after trainings of so few steps that what a method does in between may not
    happen."""
    return list(
        allowed((f"recipe.steps={steps}", partial(train, make, steps=steps)) for steps in (1, 2, 3))
    )


@lru_cache(maxsize=1)
def covers(make: Make) -> list[tuple[str, WatchedNet]]:
    """The nets after trainings in which other parameters are covered."""
    kind = home(make)
    return list(
        allowed(
            (f"{what} covered", partial(train, make, include=names, steps=10))
            for what, names in other_covers(NETS[kind]()).items()
        )
    )


def allowed(
    trainings: Iterable[tuple[str, Callable[[], WatchedNet]]],
) -> Iterator[tuple[str, WatchedNet]]:
    """Those that the method does not refuse; it has to say what would do."""
    for what, training in trainings:
        try:
            yield what, training()
        except UserError as error:
            expect_advice(error)


@lru_cache(maxsize=1)
def home(make: Make) -> str:
    """The first kind of net that the method can train. Homeless if there is none."""
    errors = []
    for kind in NETS:
        try:
            observed(make, kind, "sgd", 0)
            return kind
        except UserError as error:
            errors.append(str(error))
    raise Homeless(f"it trains none of the toy nets. {'; '.join(dict.fromkeys(errors))}")


class Homeless(AssertionError):
    """No net to run checks with."""


def train(make: Make, kind: str = "", method: Method | None = None, **how: Any) -> WatchedNet:
    """Train a toy net; `how` are other values of the method's fields, or what `run` takes."""
    fields = {key: how.pop(key) for key in ("sparsity", "allocation") if key in how}
    return run(method or make(**fields), kind or home(make), make.basis(), **how)


@lru_cache(maxsize=1)
def dense(make: Make) -> WatchedNet:
    return train(make, method=Dense())


def needs(make: Make, field: str) -> None:
    if not make.has(field):
        raise NotApplicable(f"it has no {field}")


def expect_count(net: WatchedNet, sparsity: float, more: str = "") -> None:
    """Kept are weights that are trained or, where maps were folded, nonzero: both are the sizes of
    supports. Biases, norms and parameters of maps and bases do not count."""
    left, total = round((1 - sparsity) * net.total), net.total
    assert trained(net) == left, (
        f"sparsity {sparsity}{more} must leave {left} of {total} weights, not {trained(net)}"
    )


def expect_finite(net: WatchedNet, what: str) -> None:
    assert outputs(net).isfinite().all(), f"the logits {what} are not finite"


def expect_advice(error: UserError) -> None:
    """An error has to name what would do: a model, a key or the largest sparsity."""
    words = ("model=", "sparsity", "method.", "recipe.", "allocation", "include", "exclude")
    assert any(word in str(error) for word in words), f"this error does not say what to do: {error}"


def outputs(net: WatchedNet) -> Tensor:
    net.train(False)
    dtype = next(net.model.parameters()).dtype
    with torch.no_grad(), net.weights_in_place() as model:
        return logits(model, dtype)


def silent(complaints: list[str], when: str) -> None:
    more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
    assert not complaints, f"{complaints[0]}, {when}{more}"


def first_difference(one: list[int], other: list[int]) -> str:
    if len(one) != len(other):
        return f"{len(one)} and {len(other)} steps"
    step = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    return f"{one[step]} and {other[step]} after step {step}"


@contextmanager
def said() -> Iterator[list[str]]:
    """The warnings that dimred logs in the block, instead of printing them."""
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
