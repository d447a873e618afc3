"""The cost of a run in floating-point operations (FLOPs).

Conventions. A multiplication and an addition are two FLOPs. Only convolutions and matrix products
count, not norms, activations, biases and the optimiser. The products are those that the model
executes (net/product_flops.py), counted as torch.utils.flop_counter counts them; so dense training
costs what PyTorch's counter counts, with attention as its MATH backend computes it (the counter has
no formula for the fused kernel of CPUs). A zero weight is not multiplied, and an untrained weight
takes no gradient. If a product multiplies each entry of a weight S times for an example (a Linear
layer once, a convolution at every position of its output), its costs are

    forward          2 S nonzero(E(theta))
    backward         2 S nonzero(E(theta)), the gradient of its input, if anything before it trains
                     2 S dim(psi), the gradient of its weight; 2 S D for a dense gradient: with a
                     transform E or a basis, or if the method uses dense gradients

(Evci et al., ICML 2020, arXiv:1911.11134, app. H, who set both parts of the backward pass to the
forward one's.)

Weights that are used in parts, as in attention, count part by part. Products without weights, such
as q k^T, count whole. A parametrisation that keeps zeros (spectral norm) counts the nonzero entries
of its parameter; other parametrisations count the whole weight. Computing E(theta) counts once a
step if it takes products (a projection, a filter basis) or as many sums (`flops` of a transform),
as do products of weights alone. Other work of a method (scoring) counts as executed, densely.
Evaluation is free. With `recipe.cache_frozen_mb`,
steps do not count what precedes the stored activations; computing these counts once for each
training example. A weight that trains counts in training even while it is zero, as just-grown
weights are; at inference it does not. The zeros that a transform or a basis creates are counted
again when supports change and at the end of every epoch; for a basis also one step after a change,
because at first its filters are as sparse as their coefficients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from typing import Any

import torch

from dimred.net import Net
from dimred.net.eager import DispatchMode
from dimred.net.flop_formulas import flops_of
from dimred.net.part import part_of
from dimred.net.prefix import Prefix
from dimred.net.product_flops import trace
from dimred.net.rewritten import buffers_there
from dimred.training.step_flops import (
    ALL,
    Entries,
    Layout,
    Pass,
    add_up,
    forward_of,
    grouped,
    nonzero,
)


class Executed(DispatchMode):
    """Counts the FLOPs of all executed functions while it is switched on."""

    def __init__(self) -> None:
        super().__init__()
        self.total, self.on = 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.total += flops_of(func, args, kwargs or {}, out)
        return out

    @contextmanager
    def set(self, on: bool) -> Iterator[bool]:
        """Switch counting on or off in the block; yields whether it was on before."""
        before = self.on
        self._turn(on)
        try:
            yield before
        finally:
            self._turn(before)

    def _turn(self, on: bool) -> None:
        # an active dispatch mode slows every operation, so it is entered only while counting
        if on != self.on:
            self.on = on
            _ = self.__enter__() if on else self.__exit__(None, None, None)


class Costs:
    """Counts the FLOPs of training `net` on images of `shape`.

    steps, scoring: FLOPs so far, of training steps and of a method's other work. dense_step,
    dense_forward: of one example if the whole model trains, as it does at the start; the reference
    for relative costs. dense_making: FLOPs of a dense step that do not depend on the number of
    examples.

    stored: of how many examples activations are stored, where steps begin with these.
    """

    def __init__(self, net: Net, shape: Sequence[int], stored: int = 0) -> None:
        self.net, self.shape, self.stored = net, tuple(shape), stored
        self.steps, self.executed = 0, Executed()
        self.prefix: Prefix | None = None  # what steps do not compute (net/prefix.py)
        self._entry, self._left = "", 0  # where steps begin, and the FLOPs of a forward pass then
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self._everything = self._layout()
        dense = add_up(self._everything, ALL, ALL)
        self.dense_step, self.dense_making = dense.forward + dense.backward, dense.making
        self.dense_forward = forward_of(self._everything, ALL)
        self._now: tuple[int, Pass] | None = None
        self._seen: int | None = None  # the support_version of the last step

    @property
    def scoring(self) -> int:
        return self.executed.total

    @property
    def total(self) -> int:
        return self.steps + self.scoring

    def step(self, examples: int, dense_grad: bool, prefix: Prefix | None = None) -> None:
        """Add the cost of a training step of the present net.

        prefix: what it does not compute, because the activations after it are stored."""
        if prefix is not self.prefix:
            self._begin_after(prefix)
        if self._now is None or self._now[0] != self.net.support_version:
            self._now = self.net.support_version, self.of_a_pass(self.prefix)
        now = self._now[1]
        self.steps += now.making + examples * (
            now.forward + (now.dense_backward if dense_grad else now.backward)
        )
        # after its first step a basis has made filters dense: count them again in the next one
        if self.net.bases and self._seen != self.net.support_version:
            self._now = None
        self._seen = self.net.support_version

    def _begin_after(self, prefix: Prefix | None) -> None:
        """Count steps without this prefix from now on. What steps have computed of it until now is
        computed once more, for each example that is stored."""
        entry = prefix.name if prefix else ""
        resumed = self.prefix is None and entry == self._entry
        self.prefix = prefix
        if resumed:  # all of this was counted before
            return
        self._now, left = None, 0
        if prefix:
            left, before = self.of_a_pass(prefix).forward, self._left
            if entry == self._entry or before <= left:
                before = self.of_a_pass().forward
            self.steps += self.stored * (before - left)
        self._entry, self._left = entry, left

    def dense(self, steps: int, batch_size: int) -> int:
        """FLOPs of dense training."""
        return steps * (batch_size * self.dense_step + self.dense_making)

    def look_again(self) -> None:
        """Count nonzero weights again, since transforms and bases may have changed them."""
        if self.net.transforms or self.net.bases:
            self._now = None

    def inference(self) -> int:
        """FLOPs of a forward pass of the present network, for one example."""
        active = {name: nonzero(value) for name, value in self.net.effective_weights().items()}
        return forward_of(self._everything, active)

    def state(self) -> dict[str, Any]:
        """For a checkpoint, as JSON."""
        now = self._now and (self._now[0], *astuple(self._now[1]))
        return {
            "steps": self.steps,
            "scoring": self.scoring,
            "now": now,
            "seen": self._seen,
            "begin": (self._entry, self._left),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.steps, self.executed.total = state["steps"], state["scoring"]
        self._now = state["now"] and (state["now"][0], Pass(*state["now"][1:]))
        self._seen = state.get("seen")
        self._entry, self._left = state.get("begin", ("", 0))

    # -- one step --------------------
    def of_a_pass(self, prefix: Prefix | None = None) -> Pass:
        """Of the present net, without this prefix."""
        net = self.net
        made = {name for name in net.weights if name in net.transforms or name in net.bases}
        # their parameters take the gradient of the whole weight, trained or not
        whole = {name for name in made if name in net.bases or [*net.transforms[name].parameters()]}
        trained = {name: Entries(w.size, w.dim, w.trained) for name, w in net.weights.items()}
        active = dict(trained)
        with torch.no_grad():
            for name, w in net.weights.items():
                # elsewhere, only trained entries can be nonzero
                if name in made or w.base != "zero":
                    active[name] = nonzero(net.effective(name, w.theta()))
        own = {name: entries for name, entries in trained.items() if name not in whole}
        now = add_up(self._layout(prefix), active, own, covered=net.weights)
        return replace(now, making=now.making + (self._making() if made else 0))

    def _layout(self, prefix: Prefix | None = None) -> Layout:
        """The products of a step with the present trained parameters, found by executing one."""
        trained, model = self.net.trained_parameters(), self.net.model
        key = (prefix.name if prefix else "", *trained)
        if key not in self._layouts:
            shape = prefix.activation.shape[1:] if prefix else self.shape
            compute = part_of(model, prefix)
            with self.executed.set(False), buffers_there(self.net.weights):
                values = {
                    name: w.param.detach().requires_grad_(name in trained)
                    for name, w in self.net.weights.items()
                }
                with self.net.forward.with_weights(values):
                    found = trace(model, shape, backward=True, compute=compute)
            self._layouts[key] = grouped(found)
        return self._layouts[key]

    def _making(self) -> int:
        """FLOPs of computing E(theta) and its gradient, once."""
        counter = Executed()
        told: dict[str, int] = {}
        for name, each in self.net.transforms.items():
            flops = each.flops()
            # a basis runs together with its transform
            if flops is not None and name not in self.net.bases:
                told[name] = flops
        with torch.enable_grad(), self.executed.set(False), counter.set(True):
            made = [
                self.net.effective(name, w.theta())
                for name, w in self.net.weights.items()
                if name not in told
            ]
            psi = {name: w.psi for name, w in self.net.weights.items()}
            parameters = self.net.transforms.parameters() | self.net.bases.parameters() | psi
            wanted = [p for p in parameters.values() if p.requires_grad]
            taken = [value.sum() for value in made if value.requires_grad]
            if taken:
                torch.autograd.grad(torch.stack(taken).sum(), wanted, allow_unused=True)
        return counter.total + sum(told.values())
