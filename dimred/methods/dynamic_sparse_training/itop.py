"""In-time over-parameterisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dimred.fields import Fraction, Period
from dimred.methods.random_start import RandomStart
from dimred.net import Net
from dimred.scores import magnitude
from dimred.select.rewiring import (
    drop,
    drop_counts,
    gradient_magnitude,
    grow,
    grow_random,
)
from dimred.select.schedules import cosine
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class ITOP(RandomStart):
    """In-time over-parameterisation: update the mask seldom, but many weights at a time, so that
    training explores many weights.

        drop and grow a fraction of each layer, m + (drop_fraction - m)/2 (1 + cos(pi t / T)), with
        m = min_drop_fraction, at t = k, 2 k, ... < T, with k = update_every

    Drops the weights of smallest magnitude and grows those with the largest gradient magnitude
    (RigL) or random ones (SET). Every result's `explored` is R_s, the share of all weights that
    were trained at some time. For random growth of a constant fraction p of the untrained weights,
    it is 1 - (1 - d)(1 - p)^updates. A step that updates the mask also trains, as in the official
    code.

    Trains: d weights, not always the same; stores: their positions; needs: dense gradients in the
    steps that update the mask, if it grows by gradients.

    Liu, Yin, Mocanu, Pechenizkiy, ICML 2021 (arXiv:2102.02887).
    """

    update_every: Period = 0.0153  # steps, or a fraction of training
    drop_fraction: Fraction = 0.5  # at the start of the cosine
    min_drop_fraction: Fraction = 0.005  # at the end of the cosine
    grow: Literal["gradient", "random"] = "random"

    def run(self, net: Net, train: Train) -> None:
        self.keep_random(net)
        due = train.every(self.update_every)
        for t in train.steps(dense_grad=due if self.grow == "gradient" else None):
            if due(t):
                fraction = cosine(self.drop_fraction, self.min_drop_fraction, t / len(train))
                counts = drop_counts(net, fraction, math.ceil)
                kept = drop(net, magnitude(net), counts)
                if self.grow == "gradient":
                    net.keep(grow(kept, gradient_magnitude(net), counts))
                else:
                    net.keep(grow_random(net, kept, counts))
