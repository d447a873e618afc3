"""How a run multiplies by its covered weights: `recipe.arithmetic`.

dense: by theta, zeros included. sparse: by the trained entries alone, wherever that is possible
(net/sparse.py). auto: by what is faster here, for each weight. That is measured before the first
step, and again after large changes of density. The two round differently, so a checkpoint stores
what was chosen: a resumed run goes on with it and ends with the same bits.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dimred.errors import counted
from dimred.net import Net
from dimred.net.buffers import buffers_kept
from dimred.net.seeded import generators_kept
from dimred.training.recipe import Recipe
from dimred.training.timing import median_seconds, shortest_times

if TYPE_CHECKING:
    from dimred.net.sparse import Product, SparseArithmetic

log = logging.getLogger(__name__)

#: each candidate is timed so often, in turn; the fastest counts, since other work only adds time
REPEATS = 3
#: measure again when a density has changed by this factor
LARGE_CHANGE = 1.5
#: sparse products must save this part of a step to be chosen
WORTHWHILE = 0.03
#: why products are dense of which nothing but the gradient of the weight is sparse
ITS_GRADIENT_ALONE = "but for its gradient, as what is frozen is not zero"
SHOWN = 5  # weights that a line of the log names

Work = Callable[[], object]


class Arithmetic:
    """The arithmetic of one run.

    sparse: of the net; None where all products are dense.
    """

    def __init__(self, net: Net, recipe: Recipe) -> None:
        self.net, self.recipe = net, recipe
        self.sparse: SparseArithmetic | None = None
        # of `auto`: the densities at which it has measured, by weight that can be sparse
        self._measured_at: dict[str, float] = {}
        self._seen: tuple[Any, ...] | None = None
        self._told = ""
        if recipe.arithmetic == "dense":
            return
        if why := why_dense(net, recipe):
            log.info("recipe.arithmetic=%s: all products are dense, %s", recipe.arithmetic, why)
            return
        from dimred.net.sparse import SparseArithmetic  # imports what dense runs do not need

        self.sparse = net.arithmetic = SparseArithmetic()
        if recipe.arithmetic == "auto":
            self.sparse.chosen = set()

    def prepare(self, step: Work) -> None:
        """Before a training step: measure, if it is time. step: computes gradients, and has no
        other effects than those of a forward pass."""
        if self.sparse is None:
            return
        self._tell(self.sparse)
        if self.sparse.chosen is not None and self._has_changed(self.sparse):
            with undone(self.net):
                self._choose(self.sparse, step)

    # -- auto --------------------
    def _densities(self, sparse: SparseArithmetic) -> dict[str, float]:
        weights = self.net.weights.items()
        return {n: w.dim / w.size for n, w in weights if not sparse.why_dense(self.net, n)}

    def _has_changed(self, sparse: SparseArithmetic) -> bool:
        """Whether a density, or which weights can be sparse, is no longer as it was measured."""
        now = self._densities(sparse)
        if not now.keys() <= self._measured_at.keys():
            return True
        ratios = [now[name] / self._measured_at[name] for name in now]
        return any(not 1 / LARGE_CHANGE < ratio < LARGE_CHANGE for ratio in ratios)

    def _choose(self, sparse: SparseArithmetic, step: Work) -> None:
        """Choose what is faster for each weight, if that makes whole steps faster."""
        self._measured_at = self._densities(sparse)
        measured, faster = set[str](), set[str]()

        # within the pass, since to keep all products until it ends takes as much memory again
        def measure(product: Product) -> None:
            name = product.layer.name
            measured.add(name)
            faster.discard(name)
            if choose(product.trials(self.recipe.channels_last)) == 1:
                faster.add(name)

        sparse.chosen, sparse.watch = {*self._measured_at}, measure
        step()
        sparse.watch = None
        choices = [set[str](), faster, measured]
        trials = [partial(self._with, sparse, chosen, step) for chosen in choices]
        sparse.chosen = choices[choose(trials, WORTHWHILE)]

    @staticmethod
    def _with(sparse: SparseArithmetic, chosen: set[str], step: Work) -> None:
        sparse.chosen = chosen
        step()

    # -- reports --------------------
    def _tell(self, sparse: SparseArithmetic) -> None:
        """Log which weights are dense and why, when that has changed."""
        now = self.net.support_version, len(sparse.refused), sparse.chosen
        if now == self._seen:
            return
        # before the first step it is not known how the model uses its weights
        first, self._seen = self._seen is None, now
        line = self.summary()
        if not first and line != self._told:
            log.info("arithmetic: %s", line)
            self._told = line

    @property
    def kind(self) -> str:
        """dense, sparse or, where only some products are sparse, mixed."""
        found = {*self.layers().values()}
        if found == {""}:
            return "sparse"
        return "mixed" if found & {"", ITS_GRADIENT_ALONE} else "dense"

    @torch.no_grad()
    def inference_seconds(self, images: Tensor) -> dict[str, float]:
        """How long the network takes for these images, by its arithmetic, and by dense products if
        that is another one."""
        net, recipe = self.net, self.recipe
        dense = {name: w.theta() for name, w in net.weights.items()}
        ways: dict[str, Mapping[str, Tensor] | None] = {"dense": dense, self.kind: None}
        found = {}
        net.train(False)
        for kind, thetas in ways.items():
            with net.weights_in_place(thetas, recipe.channels_last) as model:
                found[kind] = median_seconds(partial(self._infer, model, images))
        net.train()
        return found

    def _infer(self, model: Callable[[Tensor], Tensor], images: Tensor) -> None:
        # .item() waits until a GPU has computed the logits
        self.recipe.logits(model, images).sum().item()

    def summary(self) -> str:
        layers = self.layers()
        dense = [f"{name} ({why})" for name, why in layers.items() if why]
        line = f"sparse products with {len(layers) - len(dense)} of {len(layers)} weights"
        if not dense:
            return line
        others = f" and {counted(len(dense) - SHOWN, 'other')}" if len(dense) > SHOWN else ""
        return f"{line}, dense ones with {', '.join(dense[:SHOWN])}{others}"

    def layers(self) -> dict[str, str]:
        """By weight: why it is dense, or nothing where it is sparse."""
        if self.sparse is None:
            return dict.fromkeys(self.net.weights, "as all products")
        return {name: self._why_dense(self.sparse, name) for name in self.net.weights}

    def _why_dense(self, sparse: SparseArithmetic, name: str) -> str:
        if why := sparse.why_dense(self.net, name):
            return why
        if sparse.chosen is not None and name not in sparse.chosen:
            return "faster"
        return "" if self.net.weights[name].base == "zero" else ITS_GRADIENT_ALONE

    # -- checkpoints --------------------
    def state(self) -> dict[str, Any]:
        """For a checkpoint, as JSON."""
        if self.sparse is None:
            return {}
        chosen = None if self.sparse.chosen is None else sorted(self.sparse.chosen)
        return {
            "chosen": chosen,
            "refused": self.sparse.refused,
            "measured_at": self._measured_at,
            "kernels": self.sparse.kernels,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """A choice that was made with other kernels, or without, is made again."""
        if self.sparse is None or not state:
            return
        before, now = state.get("kernels"), self.sparse.kernels
        if before is not None and before != now:
            log.warning(
                "resumed with %s instead of %s: sums are rounded differently from now on, so the "
                "bits differ from those of an uninterrupted run",
                named(now),
                named(before),
            )
            return
        chosen = state["chosen"]
        self.sparse.chosen = None if chosen is None else set(chosen)
        self.sparse.refused = dict(state["refused"])
        self._measured_at = dict(state["measured_at"])


def named(kernels: str) -> str:
    return f"the sparse kernels {kernels}" if kernels else "PyTorch's operations"


def why_dense(net: Net, recipe: Recipe) -> str:
    """Why no weight can be multiplied sparsely; empty if some may."""
    device = next(net.model.parameters()).device
    if device.type != "cpu":
        return f"as there are no sparse kernels for {device.type}"
    if recipe.bf16 or recipe.fp16:
        return "as there are no sparse kernels for bf16 and fp16"
    if recipe.compile:
        return "as recipe.compile compiles dense ones"
    return ""


# -- measuring --------------------
@contextmanager
def undone(net: Net) -> Iterator[None]:
    """Afterwards gradients, buffers and generators are as before."""
    gradients = {parameter: parameter.grad for parameter in net.parameters().values()}
    hooks = {w: w.hook for w in net.weights.values()}
    for w in hooks:
        w.hook = None
    net.zero_grad()
    try:
        with buffers_kept(net.model), generators_kept():
            yield
    finally:
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        for w, hook in hooks.items():
            w.hook = hook


def choose(candidates: Sequence[Work], worthwhile: float = 0.0) -> int:
    """Which of these is the fastest; the first, unless another saves this part of its time."""
    times = shortest_times(candidates, REPEATS)
    return_memory()
    best = times.index(min(times))
    return best if times[best] < (1 - worthwhile) * times[0] else 0


def return_memory() -> None:
    """Return free memory to the system, where glibc manages it. A process keeps it otherwise
    (runs/environment.py), in pieces that fit what was measured and not what is computed later."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
