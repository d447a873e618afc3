"""Reference networks: dense training, and magnitude pruning after it."""

from __future__ import annotations

from dataclasses import dataclass

from dimred.fields import Checked, Count, Fraction, Sparsity
from dimred.net import Net
from dimred.scores import magnitude
from dimred.select.allocations import Allocation, Global
from dimred.select.topk import topk
from dimred.training.loop import Train


@dataclass(frozen=True)
class Dense:
    """Train all weights: the dense reference network.

        theta = psi

    Trains: all D weights; stores: nothing; needs: dense weights and gradients in every step.

    Rumelhart, Hinton, Williams, Nature 1986 (backpropagation).
    """

    def run(self, net: Net, train: Train) -> None:
        train()


@dataclass(frozen=True, kw_only=True)
class MagnitudeAfter(Checked):
    """Train a dense network, prune the weights of smallest magnitude, in one shot or in rounds, and
    fine-tune.

        density after round k of n = (1 - s)^(k / n);
        the rounds share the last finetune_fraction of training evenly

    All of this is one training: fine-tuning continues the recipe's learning rate schedule.

    Trains: all weights, after pruning d; stores: their positions; needs: dense weights and
    gradients until it prunes.

    Han, Pool, Tran, Dally, NeurIPS 2015 (arXiv:1506.02626).
    """

    sparsity: Sparsity = 0.9
    allocation: Allocation = Global()
    rounds: Count = 1  # 1 is one-shot
    finetune_fraction: Fraction = 0.5  # of training, shared by the rounds

    def run(self, net: Net, train: Train) -> None:
        start = 0
        for k in train.rounds(range(1, self.rounds + 1)):
            dense = 1 - self.finetune_fraction * (1 - (k - 1) / self.rounds)
            begin, start = start, round(dense * len(train))
            train(begin, start)
            density = (1 - self.sparsity) ** (k / self.rounds)
            net.keep(topk(magnitude(net), self.allocation(net, density)))
        train(start)
