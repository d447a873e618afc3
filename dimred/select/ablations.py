"""What is changed about pruning at initialisation to see what a score is good for.

Frankle, Dziugaite, Roy, Carbin, ICLR 2021 (arXiv:2009.08576).
"""

from __future__ import annotations

from typing import Literal

import torch

from dimred.net import Net
from dimred.net.coordinates import Supports
from dimred.scores import Scores, generator, permuted, random_scores
from dimred.select.topk import topk

#: shuffle: as many of each layer, but random ones. reinit: from other initial values, a permutation
#: of those of the layer (another draw of them where they are independent). invert: those that the
#: score ranks last
Ablation = Literal["none", "shuffle", "reinit", "invert"]


def inverted(scores: Scores) -> Scores:
    """Worst first; what cannot be chosen (-inf) still cannot."""
    return {name: torch.where(score == -torch.inf, score, -score) for name, score in scores.items()}


def shuffled(net: Net, supports: Supports) -> Supports:
    return topk(
        random_scores(net, "shuffle"),
        {
            name: w.size if (s := supports[name]) is None else len(s)
            for name, w in net.weights.items()
        },
    )


def reinitialise(net: Net) -> None:
    """Let trained weights start from other values."""
    fresh = permuted({name: net.initial()[name] for name in net.weights}, generator(net, "reinit"))
    net.assign(fresh)
