"""Iterative pruning at initialisation: score, prune a part, and score the remaining weights
again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from dimred.fields import Count, Positive
from dimred.methods.pruning_at_init.base import PruningAtInit, Scored, batches
from dimred.net import Net
from dimred.net.coordinates import Supports
from dimred.scores import Scores, generator, gradients, masked, ntk_sap, synflow
from dimred.select.allocations import Budget
from dimred.select.topk import rounded_down
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class Iterative(PruningAtInit):
    """Score, prune a part, and score the remaining weights again, in `rounds` rounds."""

    rounds: Count = 60  # T
    # of the number of weights kept in a round, density * total
    rounding: Literal["nearest", "floor"] = "nearest"
    schedule: Literal["exponential", "linear"] = "exponential"
    regrow: ClassVar[bool] = False  # whether pruned weights may return

    def scorer(self, net: Net, train: Train) -> Callable[[Supports, int], Scores]:
        """A function of the supports and the round (0, 1, ...): the scores of all weights, in the
        network with zeros outside the supports."""
        raise NotImplementedError

    def densities(self) -> Iterator[float]:
        for t in range(1, self.rounds + 1):
            done = t / self.rounds
            if self.schedule == "exponential":
                yield (1 - self.sparsity) ** done
            else:
                yield 1 - self.sparsity * done

    def budget(self, net: Net, density: float) -> Budget:
        if self.rounding == "floor":  # allocations round: give them a whole number of weights
            density = rounded_down(density * net.total) / net.total
        return self.allocation(net, density)

    def choose(self, net: Net, train: Train) -> Supports:
        score, supports = self.scorer(net, train), net.supports
        for t, density in enumerate(train.rounds(list(self.densities()), "scoring")):
            # without regrowth the masks of successive rounds are nested
            among = None if self.regrow else supports
            supports = dict(self.best(score(supports, t), self.budget(net, density), among))
        return supports


@dataclass(frozen=True, kw_only=True)
class IterSNIP(Iterative, Scored):
    """Iterative SNIP: prune in many rounds, and score the remaining weights again in each.

        score_t = |theta * m_t * dL/dtheta (theta * m_t)|,  density_t = density^(t/T)

    Each round has its own batch, as long as there are enough examples.

    Trains: d weights; stores: their positions; needs: dense gradients in each of the rounds before
    training.

    de Jorge et al., ICLR 2021 (arXiv:2006.09081); Verdenius et al., 2020 (arXiv:2006.00896).
    """

    examples: Count = 128

    def scorer(self, net: Net, train: Train) -> Callable[[Supports, int], Scores]:
        pool = batches(train, self.examples, self.rounds, self.augment)

        def score(supports: Supports, t: int) -> Scores:
            thetas = net.dense_weights()
            grads = gradients(net, pool[t], at=masked(thetas, supports))
            return {name: (theta * grads[name]).abs() for name, theta in thetas.items()}

        return score


@dataclass(frozen=True, kw_only=True)
class FORCE(IterSNIP):
    """Iterative SNIP that also scores pruned weights, by their initial value, so that they may
    return.

        score_t = |theta * dL/dtheta (theta * m_t)|,  density_t = density^(t/T)

    Each round has its own batch, as long as there are enough examples.

    Trains: d weights; stores: their positions; needs: dense gradients in each of the rounds before
    training.

    de Jorge et al., ICLR 2021 (arXiv:2006.09081).
    """

    regrow: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class SynFlow(Iterative):
    """Iterative pruning without data, by the synaptic flow through each weight.

        score = |theta|^power dR/d|theta|,  R = 1^T f_|theta|(1);  density_t = density^(t/T)

    power=2 is SynFlow-L2 (Gebhart, Saxena, Schrater, 2021, arXiv:2101.10552) as in its authors'
    code, which squares only the factor |theta|. Other codes also square theta within R, and
    multiply the derivative by theta^2 by |theta|.

    Trains: d weights; stores: their positions; needs: dense gradients in each of the rounds before
    training.

    Tanaka, Kunin, Yamins, Ganguli, NeurIPS 2020 (arXiv:2006.05467), alg. 1.
    """

    rounds: Count = 100
    power: Count = 1

    def scorer(self, net: Net, train: Train) -> Callable[[Supports, int], Scores]:
        return lambda supports, t: synflow(net, train.data.shape, supports, self.power)


@dataclass(frozen=True, kw_only=True)
class NTKSAP(Iterative):
    """NTK-SAP: iterative pruning without labels or data; prune the weights that change the spectrum
    of the neural tangent kernel least.

        score = |d/dm sum_x |f(x; theta m) - f(x; (theta + epsilon z) m)|^2|,  x, z ~ N(0, 1);
        density_t = density^(t/T)

    Each draw has its own x, z and initial weights. Its initial weights are a permutation of each
    layer's.

    Trains: d weights; stores: their positions; needs: dense gradients for every draw of every round
    before training.

    Wang, Li, Sun, ICLR 2023 (arXiv:2304.02840).
    """

    rounds: Count = 20
    examples: Count = 128
    draws: Count = 5  # R
    epsilon: Positive = 0.01

    def scorer(self, net: Net, train: Train) -> Callable[[Supports, int], Scores]:
        return lambda supports, t: ntk_sap(
            net,
            train.data.shape,
            supports,
            self.examples,
            self.draws,
            self.epsilon,
            generator(net, f"ntk_sap {t}"),
        )
