"""Random walks along large weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from dimred.methods.pruning_at_init.base import AtInit
from dimred.net import Net
from dimred.scores import Scores, generator, phew
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class PHEW(AtInit):
    """Keep the weights visited by random walks between inputs and outputs that prefer large
    weights.

        P(i -> j) = |W_ij|_1 / sum_j |W_ij|_1, and within the kernel W_ij by |w| / |W_ij|_1, until
        enough are visited

    The last few, fewer than a path, are single weights that close one: so the count is exact and
    all lie on paths. At high density, where walks find nothing new, the rest is chosen like this,
    too. Where paths part, as at a shortcut, all weights that lead on compete; the official code
    tosses a coin.

    Trains: d weights; stores: their positions; needs: nothing.

    Patil, Dovrolis, ICML 2021 (arXiv:2010.11354).
    """

    def scores(self, net: Net, train: Train) -> Scores:
        count = round((1 - self.sparsity) * net.total)
        rounds = partial(train.rounds, what="scoring")
        return phew(net, train.data.shape, count, generator(net, "phew"), rounds)
