"""RigL: rewire by magnitude and gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dimred.errors import require
from dimred.methods.random_start import RandomStart
from dimred.net import Net
from dimred.scores import magnitude
from dimred.select.rewiring import drop, drop_counts, grow, require_fractions
from dimred.select.schedules import Decay, decayed, require_period
from dimred.training.loop import Train


@dataclass(frozen=True)
class RigL(RandomStart):
    """Every so often, replace the smallest weights by those whose gradient is largest.

        fraction alpha/2 (1 + cos(pi t / T_end)) of each layer, at t = every, 2 every, ... < T_end,
        which do not train

    A dropped weight whose gradient is among the largest returns with its value, as in the official
    code. The fraction may also stay or fall as alpha (1 - t / T_end)^k: linear is k = 1,
    inverse_power k = 3. Gradients may be summed over the last `batches` steps up to the one that
    rewires, against the noise of small batches.

    Trains: d weights, not always the same; stores: their positions; needs: dense gradients in the
    steps that rewire (and in those whose gradients are summed).

    Evci, Gale, Menick, Castro, Elsen, ICML 2020 (arXiv:1911.11134), alg. 1.
    """

    every: int | float  # steps, or a fraction of training
    fraction: float  # alpha
    until: float  # T_end, as a fraction of training
    decay: Decay = field(default="cosine", kw_only=True)  # of the fraction
    batches: int = field(default=1, kw_only=True)  # whose gradients are summed

    def __post_init__(self) -> None:
        require_period(self.every)
        require_fractions(fraction=self.fraction, until=self.until)
        require(self.batches > 0, "method.batches", self.batches, "1 or more")

    def run(self, net: Net, train: Train) -> None:
        self.keep_random(net)
        due, period = train.every(self.every, self.until), train.period(self.every)
        require(
            self.batches <= period,
            "method.batches",
            self.batches,
            f"at most method.every, {period} steps here",
        )

        def summed(t: int) -> bool:
            """Whether the gradient of step t is one of those that decide."""
            return any(due(later) for later in range(t, t + self.batches))

        for t in train.steps(dense_grad=summed):
            if summed(t) and net.dim < net.total:
                self.add_gradients(net)
            if due(t) and net.dim < net.total:
                fraction = decayed(self.fraction, self.decay, t / (self.until * len(train)))
                self.swap(net, drop_counts(net, fraction))
                net.zero_grad()

    def add_gradients(self, net: Net) -> None:
        for name, grad in net.grads().items():
            so_far = net.method_state.get(f"gradient/{name}")
            net.method_state[f"gradient/{name}"] = grad.clone() if so_far is None else so_far + grad

    def swap(self, net: Net, counts: Mapping[str, int]) -> None:
        gradient = {name: net.method_state.pop(f"gradient/{name}").abs() for name in net.weights}
        net.keep(grow(drop(net, magnitude(net), counts), gradient, counts))
