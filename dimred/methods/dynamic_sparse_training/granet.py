"""Gradual pruning with neuroregeneration."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dimred.fields import Fraction, OpenFraction, Period, Sparsity
from dimred.methods.random_start import RandomStart
from dimred.net import Net
from dimred.scores import magnitude
from dimred.select.rewiring import drop, drop_counts, gradient_magnitude, grow
from dimred.select.schedules import cosine
from dimred.select.topk import topk
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class GraNet(RandomStart):
    """Gradual pruning with neuroregeneration: prune by global magnitude on a cubic schedule and,
    after each pruning, drop and regrow a fraction of each layer.

        density 1 - s + (s - s_0) (1 - t / t_1)^3 until t_1;
        at every update, also after t_1: drop and grow by gradient magnitude, as ITOP does

    With s_0 = 0 it is dense-to-sparse training. Without regrowth it is GMP with a global ranking,
    and with s_0 = s it is ITOP. The allocation determines the layers' densities at the start;
    later, the global ranking does.

    Trains: all weights at first or as many as initial_sparsity leaves, in the end d; stores: their
    positions; needs: dense gradients in the steps that prune and regrow, and the weights that are
    not pruned yet.

    Liu et al., NeurIPS 2021 (arXiv:2106.10404).
    """

    # s_0, or the final sparsity if that is less
    initial_sparsity: Sparsity = 0.5
    prune_until: OpenFraction = 0.6875  # t_1, end of pruning, as a fraction of training
    update_every: Period = 0.016  # steps, or a fraction of training
    drop_fraction: Fraction = 0.5  # of each layer, at the start of the cosine
    min_drop_fraction: Fraction = 0.005  # at the end of the cosine

    def run(self, net: Net, train: Train) -> None:
        start, end = min(self.initial_sparsity, self.sparsity), int(self.prune_until * len(train))
        self.keep_random(net, start)
        period = train.period(self.update_every)

        def due(t: int) -> bool:
            # also at the end of pruning, whatever the period, so that the final density is reached
            return t == end or (t > 0 and t % period == 0)

        for t in train.steps(dense_grad=due):
            if due(t):
                # before pruning: the gradients of this pass are those of the network that is still
                # unpruned
                gradient = gradient_magnitude(net)
                if t <= end:
                    left = 1 - t / end if end else 0.0
                    # the cubic schedule of GMP, from density 1 - s_0 instead of 1
                    density = 1 - self.sparsity + (self.sparsity - start) * left**3
                    net.keep(topk(magnitude(net), round(density * net.total)))
                fraction = cosine(self.drop_fraction, self.min_drop_fraction, t / len(train))
                counts = drop_counts(net, fraction, math.ceil)
                net.keep(grow(drop(net, magnitude(net), counts), gradient, counts))
