"""RigL: drop by magnitude, grow by gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dimred.errors import counted, require
from dimred.fields import Count, Fraction, Period
from dimred.methods.random_start import RandomStart
from dimred.net import Net
from dimred.scores import magnitude
from dimred.select.rewiring import drop, drop_counts, grow
from dimred.select.schedules import Decay, decayed
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class RigL(RandomStart):
    """RigL: at regular intervals, drop the weights of smallest magnitude and grow those with the
    largest gradient magnitude.

        drop fraction alpha/2 (1 + cos(pi t / T_end)) of each layer, at t = k, 2 k, ... < T_end,
        k = update_every; these steps do not train

    A dropped weight whose gradient is among the largest is regrown at once: it keeps its value, as
    in the official code, and its momentum. The drop fraction may also be constant or fall as
    alpha (1 - t / T_end)^p: linear is p = 1, inverse_power p = 3. gradient_batches > 1 reduces the
    noise of small batches: the gradients of so many steps are summed, of which the update is the
    last.

    Trains: d weights, not always the same; stores: their positions; needs: dense gradients in the
    steps that update the mask (and in those whose gradients are summed).

    Evci, Gale, Menick, Castro, Elsen, ICML 2020 (arXiv:1911.11134), alg. 1.
    """

    update_every: Period = 0.02  # steps, or a fraction of training
    drop_fraction: Fraction = 0.3  # alpha
    update_until: Fraction = 0.75  # T_end, as a fraction of training
    drop_schedule: Decay = "cosine"  # of the drop fraction
    gradient_batches: Count = 1  # whose gradients are summed

    def run(self, net: Net, train: Train) -> None:
        self.keep_random(net)
        due = train.every(self.update_every, self.update_until)
        period = train.period(self.update_every)
        require(
            self.gradient_batches <= period,
            "method.gradient_batches",
            self.gradient_batches,
            f"at most method.update_every, {counted(period, 'step')} here",
        )

        def summed(t: int) -> bool:
            """Whether the gradient of step t enters the sum of an update."""
            return any(due(later) for later in range(t, t + self.gradient_batches))

        for t in train.steps(dense_grad=summed):
            if summed(t) and net.dim < net.total:
                self.add_gradients(net)
            # a dense network (sparsity 0) has no weights to grow
            if due(t) and net.dim < net.total:
                fraction = decayed(
                    self.drop_fraction, self.drop_schedule, t / (self.update_until * len(train))
                )
                self.drop_and_grow(net, drop_counts(net, fraction))
                # no gradient, no step: the update of the mask replaces it, as in the official code
                net.zero_grad()

    def add_gradients(self, net: Net) -> None:
        for name, grad in net.grads().items():
            # in the method's state, since a run may be interrupted between the steps of a sum
            so_far = net.method_state.get(f"gradient/{name}")
            net.method_state[f"gradient/{name}"] = grad.clone() if so_far is None else so_far + grad

    def drop_and_grow(self, net: Net, counts: Mapping[str, int]) -> None:
        # popped: the next update sums anew
        gradient = {name: net.method_state.pop(f"gradient/{name}").abs() for name in net.weights}
        # candidates are all weights that are not kept, so that a dropped one may return at once
        net.keep(grow(drop(net, magnitude(net), counts), gradient, counts))
