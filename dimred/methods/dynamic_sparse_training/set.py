"""Sparse evolutionary training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dimred.fields import Fraction, Period
from dimred.methods.random_start import RandomStart
from dimred.net import Net
from dimred.scores import Scores
from dimred.select.rewiring import drop, drop_and_regrow, drop_counts
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class SET(RandomStart):
    """Sparse evolutionary training: at regular intervals, drop the weights closest to zero and grow
    random ones.

        drop the fraction zeta of the smallest positive and the fraction zeta of the largest
        negative weights of a layer

    The paper updates the mask after each of 1000 epochs. It keeps the last layer dense; here the
    last layer is sparse like the others (exclude=[...] keeps it dense).

    Trains: d weights, not always the same; stores: their positions; needs: nothing.

    Mocanu et al., Nature Communications 2018 (arXiv:1707.04780).
    """

    update_every: Period = 0.02  # steps, or a fraction of training
    drop_fraction: Fraction = 0.3  # zeta

    def run(self, net: Net, train: Train) -> None:
        self.keep_random(net)
        due = train.every(self.update_every)
        for t in train.steps():
            if due(t):
                counts = drop_counts(net, self.drop_fraction)
                drop_and_regrow(net, drop(net, rank_by_sign(net), counts), counts)


def rank_by_sign(net: Net) -> Scores:
    """The rank of |psi| among the trained weights of its layer with the same sign, in (0, 1].
    Dropping the lowest ranks drops the same fraction of the positive and of the negative
    weights."""
    return {name: _ranks(w.scatter(w.psi.detach())) for name, w in net.weights.items()}


def _ranks(theta: Tensor) -> Tensor:
    # a trained weight at exactly zero has no sign: rank 0, dropped first
    ranks = torch.zeros_like(theta)
    for positions in ((theta > 0).nonzero().view(-1), (theta < 0).nonzero().view(-1)):
        order = theta[positions].abs().argsort(stable=True)
        rank = torch.arange(1, len(order) + 1, device=theta.device, dtype=theta.dtype)
        ranks[positions[order]] = rank / max(1, len(order))
    return ranks
