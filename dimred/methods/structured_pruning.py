"""Structured pruning: whole channels are removed, and `dimred.channels.smaller.compact` makes a smaller
plain model of what is left. What a channel is, is said there.

`sparsity` is that of every other method: the fraction of the covered weights that is removed (`of:
weights`), met from above by less than one channel; or, as papers count, the fraction of the
removable channels (`of: channels`). A layer never loses its last channel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from dimred.channels.selection import Channels
from dimred.errors import require
from dimred.net import Net
from dimred.scores import NAMED, Named, generator, magnitude
from dimred.select.ablations import Ablation, inverted, reinitialise
from dimred.training.loop import Train


@dataclass(frozen=True)
class L1Filters:
    """Train, remove the same fraction of each layer's filters, those with the smallest L1 norm, and
    train on.

        score of a channel = sum |theta| over the filters that make it

    The paper trains to the end and then on at a small learning rate; here pruning is at a fraction
    `at` of one training. It prunes the first layer of a residual block only: `skip` names the
    weights whose filters all stay, such as [conv2]; without it, channels that are added are removed
    together, by the sum of their scores (ours).

    Trains: all weights, then those of the channels that are left; stores: nothing: what is left is
    a small dense net;
    needs: dense weights and gradients until it prunes.

    Li, Kadav, Durdanovic, Samet, Graf, ICLR 2017 (arXiv:1608.08710).
    """

    sparsity: float
    of: Literal["weights", "channels"]
    at: float  # when to prune, as a fraction of training
    skip: tuple[str, ...]  # regular expressions: weights whose filters stay

    def __post_init__(self) -> None:
        require(0 <= self.at <= 1, "method.at", self.at, "a fraction of training, in [0, 1]")

    def run(self, net: Net, train: Train) -> None:
        channels, prune = Channels(net, train.sample(1)[0], self.skip), round(self.at * len(train))
        train(0, prune)
        scores = channels.within_layers(channels.sums(magnitude(net)))
        channels.keep(channels.best(scores, 1 - self.sparsity, self.of))
        train(prune)


@dataclass(frozen=True)
class NetworkSlimming:
    """Train with an L1 penalty on the scales of norms, remove the channels with the smallest, and
    train on.

        gradient of gamma += s sign(gamma);  score of a channel = |gamma|, over all layers

    Channels that are added have several scales; their mean decides (ours: the paper leaves such
    channels in place). What has no scale stays. The paper trains to the end and then trains what is
    left again; here pruning is at a fraction `at` of one training.

    Trains: all weights, then those of the channels that are left; stores: nothing: what is left is
    a small dense net;
    needs: dense weights and gradients until it prunes.

    Liu, Li, Shen, Huang, Yan, Zhang, ICCV 2017 (arXiv:1708.06519).
    """

    sparsity: float
    of: Literal["weights", "channels"]
    at: float  # when to prune, as a fraction of training
    penalty: float  # s

    def __post_init__(self) -> None:
        require(0 <= self.at <= 1, "method.at", self.at, "a fraction of training, in [0, 1]")
        require(self.penalty >= 0, "method.penalty", self.penalty, "0 or more")

    def run(self, net: Net, train: Train) -> None:
        channels, prune = Channels(net, train.sample(1)[0]), round(self.at * len(train))
        channels.require_scales("network_slimming")
        for _ in train.steps(0, prune):
            channels.add_l1_gradient(self.penalty)
        channels.keep(channels.best(channels.mean_scale(), 1 - self.sparsity, self.of))
        train(prune)


@dataclass(frozen=True)
class ChannelAtInit:
    """Remove channels before training, by a score of their weights.

        score of a channel = sum of the scores of the weights in the filters that make it

    In `rounds` rounds that leave (1 - sparsity)^(k / rounds) each, scored anew. Channels that are
    added are one, and so are their scores. Sums over filters are the plain generalisation of scores
    of weights (ours); scores that are about paths or training (PHEW, NTK-SAP, ProsPr) have none
    here.

    Trains: the weights of the channels that are left; stores: nothing: what is left is a small
    dense net; needs: dense gradients once, before training, if the score does.

    Scores: Frankle et al., ICLR 2021 (arXiv:2009.08576); of channels: Verdenius et al., 2020
    (arXiv:2006.00896)."""

    sparsity: float
    of: Literal["weights", "channels"]
    score: Named
    across: Literal[
        "network", "layer"
    ]  # where channels compete; layer: each loses the same fraction
    rounds: int
    examples: int  # of the training set, that weights are scored with
    ablation: Ablation  # of channels: dimred/select/ablations.py
    # score with crops and flips, as in training
    augment: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        require(self.rounds > 0, "method.rounds", self.rounds, "1 or more")

    def run(self, net: Net, train: Train) -> None:
        batch = train.sample(self.examples, self.augment)
        channels = Channels(net, batch[0])

        def prune() -> None:
            for k in train.rounds(range(1, self.rounds + 1), "scoring"):
                scores = NAMED[self.score](net, batch)
                sums = channels.sums(inverted(scores) if self.ablation == "invert" else scores)
                ranks = sums if self.across == "network" else channels.within_layers(sums)
                kept = channels.best(ranks, (1 - self.sparsity) ** (k / self.rounds), self.of)
                if self.ablation == "shuffle":
                    kept = channels.shuffled(kept, sums > -torch.inf, generator(net, "shuffle"))
                channels.keep(kept)
            if self.ablation == "reinit":
                reinitialise(net)

        train.once(prune)
        train()
