"""Sparse momentum."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from dimred.fields import Fraction, Period, UnitInterval
from dimred.methods.random_start import RandomStart
from dimred.net import Net
from dimred.scores import Scores, magnitude
from dimred.select.allocations import Allocation, Uniform, regrown
from dimred.select.rewiring import drop, drop_counts, grow
from dimred.select.schedules import cosine
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class SNFS(RandomStart):
    """Sparse momentum: drop the weights of smallest magnitude and grow those with the largest
    momentum; layers with larger momentum grow more.

        drop a fraction as in ITOP;  layer l grows a share of them in proportion to the mean |m|
        of its trained weights

    m <- mu m + dL/dtheta is kept for every weight, trained or not, so each step costs a dense
    gradient. It is the momentum of SGD without weight decay, and the same for every optimiser. With
    SGD a grown weight starts with this momentum, as in the official code. The paper updates the
    mask after each of 100 (MNIST) or 250 (CIFAR) epochs. The total number of weights is exact. The
    official code corrects layers that are nearly dense or full; here growth that does not fit into
    a layer goes to the other layers.

    Trains: d weights, not always the same; stores: their positions; needs: dense gradients and a
    dense momentum in every step.

    Dettmers, Zettlemoyer, 2019 (arXiv:1907.04840).
    """

    allocation: Allocation = Uniform()
    update_every: Period = 0.02  # steps, or a fraction of training
    drop_fraction: Fraction = 0.5  # at the start of the cosine
    min_drop_fraction: Fraction = 0.005  # at the end of the cosine
    momentum: UnitInterval = 0.9

    def run(self, net: Net, train: Train) -> None:
        self.keep_random(net)
        due = train.every(self.update_every)
        for t in train.steps(dense_grad=lambda t: True):
            if due(t):
                self.update_mask(
                    net, cosine(self.drop_fraction, self.min_drop_fraction, t / len(train))
                )
            # after the update of the mask, which sees the momentum of completed steps alone
            for name, grad in net.grads().items():
                momentum = net.method_state.setdefault(f"momentum/{name}", torch.zeros_like(grad))
                momentum.mul_(self.momentum).add_(grad)

    def update_mask(self, net: Net, fraction: float) -> None:
        """Update the mask by the momentum after the previous step. This step's gradient then trains
        old and grown weights alike."""
        counts = drop_counts(net, fraction, math.ceil)
        before = {name: w.trained() for name, w in net.weights.items()}
        left = {name: net.weights[name].dim - count for name, count in counts.items()}
        momentum = {name: net.method_state[f"momentum/{name}"] for name in net.weights}
        size, grads = {name: each.abs() for name, each in momentum.items()}, net.grads()
        more = regrown(net, left, momentum_shares(net, size))
        net.keep(grow(drop(net, magnitude(net), counts), size, more))
        for name, w in net.weights.items():
            joined = w.gather(~before[name])
            # keep() gives grown weights a zero gradient and no optimiser state. Here they take part
            # in this step, and inherit the dense momentum that selected them
            w.psi.grad = w.gather(grads[name].view(-1))
            state = net.optimizer_state.of(w.psi)
            if "momentum_buffer" in state:
                state["momentum_buffer"][joined] = w.gather(momentum[name].view(-1))[joined]


def momentum_shares(net: Net, size: Scores) -> dict[str, float]:
    """The mean |momentum| of each layer's trained weights, as a fraction of the sum over layers."""
    means = dict.fromkeys(net.weights, 0.0)
    for name, w in net.weights.items():
        if w.dim:
            means[name] = float(w.gather(size[name].view(-1)).mean())
    total = sum(means.values()) or 1.0
    return {name: mean / total for name, mean in means.items()}
