"""Structured pruning: remove whole channels.

dimred/channels/selection.py defines channels, and `dimred.channels.smaller.without_channels` makes
a smaller plain model without the removed ones.

With `count: weights`, `sparsity` is the fraction of the covered weights that is removed, as for
every other method; it is exceeded by less than one channel. With `count: channels` it is the
fraction of the removable channels, as in many papers. A layer never loses its last channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from dimred.channels.selection import Channels
from dimred.fields import Checked, Count, Fraction, NotNegative, Sparsity
from dimred.net import Net
from dimred.scores import NAMED, Named, generator, magnitude
from dimred.select.ablations import Ablation, inverted, reinitialise
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class L1Filters(Checked):
    """L1 filter pruning: train, prune the filters with the smallest L1 norm, the same fraction of
    each layer, and fine-tune.

        score of a channel = sum |theta| over the filters that create it

    The paper trains to the end and then fine-tunes at a small learning rate; here pruning is at the
    fraction prune_at of one training. The paper prunes only the first layer of each residual block:
    to do so, `skip` names the weights that keep all filters, such as [conv2]. Without it, channels
    coupled by additions are removed together, by the sum of their scores (ours).

    Trains: all weights, then those of the remaining channels; stores: nothing: the remaining net is
    small and dense;
    needs: dense weights and gradients until it prunes.

    Li, Kadav, Durdanovic, Samet, Graf, ICLR 2017 (arXiv:1608.08710).
    """

    sparsity: Sparsity = 0.9
    count: Literal["weights", "channels"] = "weights"
    prune_at: Fraction = 0.5  # when to prune, as a fraction of training
    skip: tuple[str, ...] = ()  # regular expressions: weights whose filters stay

    def run(self, net: Net, train: Train) -> None:
        channels, prune = (
            Channels(net, train.sample(1)[0], self.skip),
            round(self.prune_at * len(train)),
        )
        train(0, prune)
        scores = channels.within_layers(channels.sums(magnitude(net)))
        channels.keep(channels.best(scores, 1 - self.sparsity, self.count))
        train(prune)


@dataclass(frozen=True, kw_only=True)
class NetworkSlimming(Checked):
    """Network slimming: train with an L1 penalty on the scales of norms, prune the channels with
    the smallest scales, and fine-tune.

        gradient of gamma += s sign(gamma);  score of a channel = |gamma|, over all layers

    Channels coupled by additions have several scales; they are ranked by the mean (ours: the paper
    does not prune such channels). Channels without a scale are not pruned. The paper trains to the
    end and then trains the remaining network again; here pruning is at the fraction prune_at of one
    training.

    Trains: all weights, then those of the remaining channels; stores: nothing: the remaining net is
    small and dense;
    needs: dense weights and gradients until it prunes.

    Liu, Li, Shen, Huang, Yan, Zhang, ICCV 2017 (arXiv:1708.06519).
    """

    sparsity: Sparsity = 0.9
    count: Literal["weights", "channels"] = "weights"
    prune_at: Fraction = 0.5  # when to prune, as a fraction of training
    penalty: NotNegative = 1e-4  # s, on the scales of norms

    def run(self, net: Net, train: Train) -> None:
        channels, prune = Channels(net, train.sample(1)[0]), round(self.prune_at * len(train))
        channels.require_scales("network_slimming")
        for _ in train.steps(0, prune):
            channels.add_l1_gradient(self.penalty)
        channels.keep(channels.best(channels.mean_scale(), 1 - self.sparsity, self.count))
        train(prune)


@dataclass(frozen=True, kw_only=True)
class ChannelAtInit(Checked):
    """Prune channels at initialisation, by the sum of their weights' scores.

        score of a channel = sum of the scores of the weights in the filters that create it

    Round k of `rounds` leaves a fraction (1 - sparsity)^(k / rounds), and each round scores again.
    Channels coupled by additions are removed together, by the sum of their scores. Sums over
    filters are the simplest generalisation of weight scores (ours). Scores of paths or of training
    (PHEW, NTK-SAP, ProsPr) have no such generalisation here.

    Trains: the weights of the remaining channels; stores: nothing: the remaining net is small and
    dense; needs: dense gradients once, before training, if the score does.

    Scores: Frankle et al., ICLR 2021 (arXiv:2009.08576); of channels: Verdenius et al., 2020
    (arXiv:2006.00896)."""

    sparsity: Sparsity = 0.9
    count: Literal["weights", "channels"] = "weights"
    score: Named = "snip"
    # compare channels in the whole network; layer: the same fraction of each layer
    scope: Literal["network", "layer"] = "network"
    rounds: Count = 1
    examples: Count = 128  # training examples that weights are scored on
    ablation: Ablation = "none"  # dimred/select/ablations.py, for channels
    # score with crops and flips, as in training
    augment: bool = False

    def run(self, net: Net, train: Train) -> None:
        batch = train.sample(self.examples, self.augment)
        channels = Channels(net, batch[0])

        def prune() -> None:
            for k in train.rounds(range(1, self.rounds + 1), "scoring"):
                scores = NAMED[self.score](net, batch)
                sums = channels.sums(inverted(scores) if self.ablation == "invert" else scores)
                ranks = sums if self.scope == "network" else channels.within_layers(sums)
                kept = channels.best(ranks, (1 - self.sparsity) ** (k / self.rounds), self.count)
                if self.ablation == "shuffle":
                    kept = channels.shuffled(kept, sums > -torch.inf, generator(net, "shuffle"))
                channels.keep(kept)
            if self.ablation == "reinit":
                reinitialise(net)

        train.once(prune)
        train()
