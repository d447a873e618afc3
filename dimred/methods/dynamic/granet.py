"""Gradual pruning with neuroregeneration."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dimred.errors import require
from dimred.methods.random_start import RandomStart
from dimred.net import Net
from dimred.scores import magnitude
from dimred.select.rewiring import drop, drop_counts, gradient_magnitude, grow, require_fractions
from dimred.select.schedules import cosine, require_period
from dimred.select.topk import topk
from dimred.training.loop import Train


@dataclass(frozen=True)
class GraNet(RandomStart):
    """Prune the smallest weights of all layers little by little, and after each time regrow a part
    of each layer.

        density 1 - s + (s - s_0) (1 - t / t_1)^3 until t_1;  then drop and grow as ITOP does by gradients

    From s_0 = 0 it is dense-to-sparse training. Without regrowth it is GMP with one ranking over
    all layers, with s_0 = s ITOP. The allocation is that of the start; later, layers keep what
    their weights earn.

    Trains: all weights at first or as many as `start` says, in the end d; stores: their positions;
    needs: dense gradients in the steps that prune and regrow, and all that is not pruned yet.

    Liu et al., NeurIPS 2021 (arXiv:2106.10404).
    """

    start: float  # s_0, the sparsity at the start, or the final one if that is less
    end: float  # t_1, of pruning, as a fraction of training
    every: int | float  # steps, or a fraction of training
    fraction: float  # of each layer to regrow, at the start of the cosine
    floor: float  # at its end

    def __post_init__(self) -> None:
        require_period(self.every)
        require(0 <= self.start < 1, "method.start", self.start, "a sparsity in [0, 1)")
        require(0 < self.end < 1, "method.end", self.end, "a fraction of training, in (0, 1)")
        require_fractions(fraction=self.fraction, floor=self.floor)

    def run(self, net: Net, train: Train) -> None:
        start, end = min(self.start, self.sparsity), int(self.end * len(train))
        self.keep_random(net, start)
        period = train.period(self.every)

        def due(t: int) -> bool:
            # `end` is before the last step, however few there are
            return t == end or (t > 0 and t % period == 0)

        for t in train.steps(dense_grad=due):
            if due(t):
                gradient = gradient_magnitude(net)
                if t <= end:
                    left = 1 - t / end if end else 0.0
                    density = 1 - self.sparsity + (self.sparsity - start) * left**3
                    net.keep(topk(magnitude(net), round(density * net.total)))
                fraction = cosine(self.fraction, self.floor, t / len(train))
                counts = drop_counts(net, fraction, math.ceil)
                net.keep(grow(drop(net, magnitude(net), counts), gradient, counts))
