"""The promises of every method. A check runs the method on toy problems. It raises AssertionError
with the expectation that failed, or NotApplicable with the reason why the method makes no such
promise."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dimred.conformance.expectations import (
    captured_warnings,
    expect_advice,
    expect_count,
    expect_finite,
    expect_none,
    first_difference,
    needs,
)
from dimred.conformance.make import SPARSITY, Make
from dimred.conformance.observe import STEPS, Crash, difference, logits, outputs, toy_net, trained
from dimred.conformance.products import Products, relative_difference
from dimred.conformance.sums import UnorderedSums, deterministic_kernels
from dimred.conformance.toy import NETS
from dimred.conformance.trainings import (
    coverings,
    dense,
    observe,
    short_trainings,
    train,
    trainable_kind,
)
from dimred.errors import UserError
from dimred.net.state import finished
from dimred.storage.folder import RunFolder

Check = Callable[[Make], None]


def check_training(make: Make) -> None:
    """It trains, for at least as many steps as a training has."""
    net = observe(make)
    steps = len(net.trace.counts)
    assert steps >= STEPS, f"it takes {steps} steps of {STEPS}"
    before = toy_net(trainable_kind(make), make.basis())
    assert not torch.equal(outputs(net), outputs(before)), "the logits are those before training"


# -- counts --------------------
ALLOCATIONS = {
    name: {"_target_": f"dimred.select.allocations.{name}", **more}
    for name, more in (("Global", {}), ("Uniform", {}), ("ERK", {"power": 1.0}))
}


def check_exact_count(make: Make) -> None:
    """At the end exactly round((1 - sparsity) * total) weights are kept. The number at each step
    does not depend on the seed."""
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
        except UserError as error:  # some methods cannot rank all layers together
            expect_advice(error)
            continue
        expect_count(net, sparsity, f" (allocation {allocation})")
    for where, net in [*short_trainings(make), *coverings(make)]:
        expect_count(net, SPARSITY, f" ({where})")


def check_budget(make: Make) -> None:
    """At the end at least one weight is kept, and no more than the sparsity allows."""
    needs(make, "sparsity")
    for where, net in [("as usual", observe(make)), *short_trainings(make), *coverings(make)]:
        kept, budget = trained(net), round((1 - SPARSITY) * net.total)
        assert 0 < kept <= budget, f"{kept} weights are kept, of a budget of {budget} ({where})"


def check_sparsity_zero(make: Make) -> None:
    """With sparsity 0 it equals dense training, to the bit."""
    needs(make, "sparsity")
    net = train(make, sparsity=0.0)
    expect_count(net, 0.0)
    name = difference(net.state_dict(), dense(make).state_dict())
    assert not name, f"with sparsity 0, {name} is not what dense training makes of it"


def check_extreme_sparsity(make: Make) -> None:
    """With almost no weights left it keeps some weights of every layer, or raises an error or
    warns."""
    needs(make, "sparsity")
    for sparsity in (0.99, 0.9999):
        with captured_warnings() as warnings:
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
    """Untrained weights keep their value to the bit between changes of the support."""
    for optimizer in ("sgd", "adam"):
        expect_none(observe(make, optimizer).trace.frozen, optimizer)


def check_optimizer_state(make: Make) -> None:
    """After a change of the support, weights that remain keep their optimiser state, and new
    weights have none."""
    for optimizer in ("sgd", "adam"):
        expect_none(observe(make, optimizer).trace.optimizer, optimizer)


def check_scoring(make: Make) -> None:
    """Scoring does not change BatchNorm's statistics or the random state."""
    for optimizer in ("sgd", "adam"):
        expect_none(observe(make, optimizer).trace.scoring, optimizer)


# -- repetition --------------------
def check_determinism(make: Make) -> None:
    """The same seed gives the same bits, whatever the random states of Python and numpy; another
    seed gives other bits."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    again = train(make).trace.state
    name = difference(observe(make).trace.state, again)
    assert not name, f"a second training with the same seed differs in {name}"
    assert difference(again, observe(make, seed=1).trace.state), (
        "training with another seed gives the same bits"
    )


def check_sums(make: Make) -> None:
    """Sums are added up in the same order in every run, on a GPU and by several threads, too."""
    for kind in dict.fromkeys((trainable_kind(make), "attention")):
        with deterministic_kernels(), UnorderedSums() as sums:
            try:
                train(make, kind)
            except UserError:  # as check_models examines
                continue
        names = ", ".join(sorted(name for name, _ in sums.found))
        assert not sums.found, (
            f"in the {kind} net it computes {names}, which a GPU or several threads add up in "
            "another order in every run: add up by a matrix product, or in float64 by "
            "index_put_(accumulate=True)"
        )


def check_resume(make: Make) -> None:
    """After a crash at any step, the resumed run ends with the same bits and metrics."""
    for optimizer, every in (("sgd", 4), ("adam", 7)):
        expect_same_when_resumed(make, every, optimizer, optimizer=optimizer)


def expect_same_when_resumed(make: Make, every: int, what: str, **how: Any) -> None:
    """every: steps from one crash to the next, at least."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        with RunFolder(Path(one)) as folder:
            whole = train(make, folder=folder, **how)
        steps = len(whole.trace.counts)
        # crashes spread over the training, each run resuming the one before; the last run (-1) ends
        for crash in (*range(1, steps, max(every, steps // 5)), -1):
            try:
                with RunFolder(Path(other)) as again:
                    net = train(make, folder=again, crash=crash, **how)
            except Crash:
                continue
        reports = (
            folder.metrics.read_text().splitlines(),
            again.metrics.read_text().splitlines(),
        )
    name = difference(whole.trace.state, net.trace.state)
    assert not name, (
        f"resumed after crashes ({what}), it ends with another {name} than uninterrupted"
    )
    for line, expected in zip(*reports, strict=True):
        assert line == expected, (
            f"resumed after crashes ({what}), it reports {line}, uninterrupted {expected}"
        )


def check_saving(make: Make) -> None:
    """The saved net and the plain model with its state dict give the same logits, to the bit, and
    the saved net has the same number of trained values."""
    net = observe(make)
    expected = outputs(net)
    twin = toy_net(trainable_kind(make), make.basis())
    # the same state that a finished run stores
    state, _ = finished(net)  # without draws: these nets keep copies of their initial weights
    twin.load(state)
    advice = ": call net.keep(..., merge=True) at the end of run" if net.transforms else ""
    assert twin.dim == net.dim, (
        f"the net loaded from its state has dim {twin.dim} instead of {net.dim}{advice}"
    )
    assert torch.equal(outputs(twin), expected), (
        f"the net loaded from its state gives other logits{advice}"
    )
    plain = NETS[trainable_kind(make)]()
    plain.load_state_dict(net.state_dict())
    assert torch.equal(logits(plain), expected), (
        "the plain model with net.state_dict() gives other logits"
    )


# -- where it works --------------------
def check_models(make: Make) -> None:
    """It trains convolutional nets, MLPs, residual, grouped, attention and partly frozen nets, and
    nets with tied weights, or its error says what it needs; the plain model with the state dict
    gives the same logits."""
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
        expect_none(net.trace.frozen + net.trace.optimizer, f"in the {kind} net")
        plain = NETS[kind]()
        plain.load_state_dict(net.state_dict())
        assert torch.allclose(logits(plain), outputs(net), atol=1e-5), (
            f"the plain {kind} net with net.state_dict() gives other logits"
        )


def check_covers(make: Make) -> None:
    """It trains with biases, norms or a single layer covered, or its error says what it needs."""
    for where, net in coverings(make):
        expect_finite(net, where)
        expect_none(net.trace.frozen + net.trace.optimizer, where)


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
        expect_none(net.trace.frozen, what)
        if make.has("sparsity"):
            assert net.trace.counts == observe(make).trace.counts, (
                f"{what}, other numbers of weights are trained"
            )


def check_compile(make: Make) -> None:
    """Under torch.compile (without code generation) it gives the same bits."""
    name = difference(observe(make).trace.state, train(make, compiled=True).trace.state)
    assert not name, f"translated by torch.compile, it ends with another {name}"


def check_capture(make: Make) -> None:
    """Steps that are captured, as on a GPU (by emulated CUDA graphs), end with the same bits."""
    # long enough for methods that change coordinates often to keep them for a few steps
    eager, captured = (train(make, emulated=each, steps=2 * STEPS) for each in (False, True))
    name = difference(eager.trace.state, captured.trace.state)
    assert not name, (
        f"with captured steps, it ends with another {name}: a number that a method changes between "
        "steps has to lie in a tensor, which is changed in place"
    )
    expect_none(captured.trace.frozen + captured.trace.optimizer, "with captured steps")
    why = captured.trace.reason or "coordinates change in every step"
    assert captured.trace.captured, f"no step can be captured in a CUDA graph: {why}"


def check_arithmetic(make: Make) -> None:
    """With sparse products it ends with the weights of dense ones, up to rounding in float64, and
    resumes to the same bits."""
    used = set[str]()
    for kind in dict.fromkeys((trainable_kind(make), "mlp")):
        try:
            expected = train(make, kind, dtype=torch.float64)
        except UserError:  # as check_models examines
            continue
        products = Products()
        net = train(make, kind, dtype=torch.float64, arithmetic="sparse", observers=[products])
        used |= products.used
        what = f"with sparse products in the {kind} net"
        assert not products.missed, f"{what}, those with {min(products.missed)} are dense"
        name, size = relative_difference(net.state_dict(), expected.state_dict())
        assert size < 1e-9, f"{what}, it ends with another {name} (by {size:.1g} of its size)"
    if used:
        expect_same_when_resumed(make, STEPS // 2, "sparse products", arithmetic="sparse")


def check_theta(make: Make) -> None:
    """With weights that are written when they are used and freed afterwards, it ends with the same
    bits."""
    rewritten = train(make, theta="rewritten")
    name = difference(observe(make).trace.state, rewritten.trace.state)
    assert not name, f"with recipe.theta=rewritten, it ends with another {name}"


CHECKS: dict[str, Check] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}
