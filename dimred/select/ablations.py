"""Ablations of pruning at initialisation: they test whether a score's choice of weights within
layers, and their initial values, matter.

Frankle, Dziugaite, Roy, Carbin, ICLR 2021 (arXiv:2009.08576).
"""

from __future__ import annotations

from typing import Literal

import torch

from dimred.net import Net
from dimred.net.coordinates import Supports
from dimred.scores import Scores, generator, permuted, random_scores
from dimred.select.topk import topk

#: shuffle: the same number of weights in each layer, at random. reinit: new initial values, a
#: permutation of the layer's. invert: keep the weights with the lowest scores
Ablation = Literal["none", "shuffle", "reinit", "invert"]


def inverted(scores: Scores) -> Scores:
    """Scores with the reverse ranking. Weights that cannot be chosen (-inf) still rank last."""
    return {name: torch.where(score == -torch.inf, score, -score) for name, score in scores.items()}


def shuffled(net: Net, supports: Supports) -> Supports:
    """Supports with the same number of weights in each layer, at random positions."""
    counts = {name: w.size for name, w in net.weights.items()}
    counts |= {name: len(support) for name, support in supports.items() if support is not None}
    return topk(random_scores(net, "shuffle"), counts)


def reinitialise(net: Net) -> None:
    """Give trained weights new initial values: a permutation of the initial values of their
    layer."""
    fresh = permuted({name: net.initial()[name] for name in net.weights}, generator(net, "reinit"))
    net.assign(fresh)
