"""PHEW: random walks biased towards large weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from dimred.methods.pruning_at_init.base import PruningAtInit
from dimred.net import Net
from dimred.scores import Scores, generator, phew
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class PHEW(PruningAtInit):
    """Paths with higher edge-weights: keep the weights visited by random walks between inputs and
    outputs that prefer large weights.

        P(i -> j) = |W_ij|_1 / sum_j |W_ij|_1, and within the kernel W_ij by |w| / |W_ij|_1,
        until enough weights are visited

    The last few weights, fewer than a path has, are single weights that each complete a path, so
    that the count is exact and all kept weights lie on paths. At high density, where walks find few
    new weights, the rest is chosen in the same way. Where several layers use a channel, as at a
    shortcut, the walk chooses among all of their weights by magnitude; the official code chooses
    the layer with equal probabilities.

    Trains: d weights; stores: their positions; needs: nothing.

    Patil, Dovrolis, ICML 2021 (arXiv:2010.11354).
    """

    def scores(self, net: Net, train: Train) -> Scores:
        count = round((1 - self.sparsity) * net.total)
        rounds = partial(train.rounds, what="scoring")
        return phew(net, train.data.shape, count, generator(net, "phew"), rounds)
