"""Single-shot pruning: the weights are scored and pruned once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from dimred.errors import require
from dimred.fields import Count, NotNegative, Positive, Step
from dimred.methods.pruning_at_init.base import PruningAtInit, Scored, balanced_batch, batches
from dimred.methods.random_start import scale_by_fan_in
from dimred.net import Net
from dimred.scores import (
    Scores,
    gradient_flow,
    halves_by_class,
    lamp,
    magnitude,
    prospr,
    random_scores,
    snip,
)
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class Random(PruningAtInit):
    """Prune at random at initialisation: the reference for every score.

        score ~ N(0, 1)

    scale_fan_in multiplies the weights of each neuron by sqrt(number of inputs / number of trained
    inputs), so that its output has the variance of the dense neuron: Evci et al., AAAI 2022
    (arXiv:2010.03533).

    Trains: d weights; stores: their positions, or the seed that drew them; needs: nothing.

    Frankle et al., ICLR 2021 (arXiv:2009.08576); Liu et al., ICLR 2022 (arXiv:2202.02643).
    """

    # divide weights by sqrt(density of their neuron)
    scale_fan_in: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.scale_fan_in or self.base == "zero",
            "method.scale_fan_in",
            self.scale_fan_in,
            "false where method.base=init gives neurons all their inputs",
        )

    def scores(self, net: Net, train: Train) -> Scores:
        return random_scores(net)

    def prune(self, net: Net, train: Train) -> None:
        super().prune(net, train)
        if self.scale_fan_in:
            scale_by_fan_in(net)


@dataclass(frozen=True, kw_only=True)
class Magnitude(PruningAtInit):
    """Prune at initialisation by magnitude: keep the largest initial weights.

        score = |theta_0|

    Trains: d weights; stores: their positions; needs: nothing.

    Frankle et al., ICLR 2021 (arXiv:2009.08576).
    """

    def scores(self, net: Net, train: Train) -> Scores:
        return magnitude(net)


@dataclass(frozen=True, kw_only=True)
class LAMP(PruningAtInit):
    """Prune at initialisation by layer-adaptive magnitude: the square of a weight relative to the
    weights of its layer that are at least as large.

        score = theta_u^2 / sum of theta_v^2 over all v of the layer with |theta_v| >= |theta_u|

    The paper prunes trained networks; here the weights are scored before training, as by the other
    scores.

    Trains: d weights; stores: their positions; needs: nothing.

    Lee, Park, Mo, Ahn, Shin, ICLR 2021 (arXiv:2010.07611), eq. 4.
    """

    def scores(self, net: Net, train: Train) -> Scores:
        return lamp(net)


@dataclass(frozen=True, kw_only=True)
class SNIP(Scored):
    """Prune at initialisation by connection sensitivity: keep the weights whose removal changes the
    loss most on one batch.

        score = |theta * dL/dtheta|

    Scores and training use the same initial weights; the official code trains a second draw.

    Trains: d weights; stores: their positions; needs: dense gradients once, before training.

    Lee, Ajanthan, Torr, ICLR 2019 (arXiv:1810.02340), eq. 4-5.
    """

    examples: Count = 128

    def scores(self, net: Net, train: Train) -> Scores:
        return snip(net, train.sample(self.examples, self.augment))


@dataclass(frozen=True, kw_only=True)
class FreezeNet(SNIP):
    """Train the weights with the highest SNIP scores; all others keep their initial values.

        theta = theta_0;  theta[support] = psi,  support = top |theta_0 * dL/dtheta_0|

    With base=init, every other method of this family freezes in the same way.

    Trains: d weights; stores: their positions, and the seed of the others; needs: dense gradients
    once, before training, and dense weights in every pass.

    Wimmer, Mehnert, Condurache, ACCV 2020 (arXiv:2011.14087).
    """

    base: Literal["zero", "init"] = "init"


@dataclass(frozen=True, kw_only=True)
class GraSP(Scored):
    """Prune at initialisation by gradient flow: keep the weights whose removal would decrease the
    norm of the gradient most.

        score = theta * (H g),  g and H the gradient and Hessian of the cross-entropy of
        logits / temperature

    By default g and H are those of one balanced batch, as in the paper. With split_batch=true they
    are sums over two halves of the batch, the first and the last classes, as in the official code;
    each half then has its own BatchNorm statistics. The official code also scores a copy with newly
    drawn Linear layers. Scores are computed in float64, since H g is tiny at this temperature.

    Trains: d weights; stores: their positions; needs: dense gradients of second order once, before
    training.

    Wang, Zhang, Grosse, ICLR 2020 (arXiv:2002.07376), eq. 8.
    """

    examples_per_class: Count = 10
    temperature: Positive = 200.0
    split_batch: bool = False

    def scores(self, net: Net, train: Train) -> Scores:
        batch = balanced_batch(train, self.examples_per_class, self.augment)
        parts = halves_by_class(batch) if self.split_batch else [batch]
        return gradient_flow(net, parts, self.temperature, partial(train.rounds, what="scoring"))


@dataclass(frozen=True, kw_only=True)
class CroP(Scored):
    """Prune at initialisation by gradient flow: keep the weights whose removal would change the
    norm of the gradient most, in either direction.

        score = |theta * (H g)|,  g and H sums over some batches

    By default the sums are over five batches, drawn without regard to classes, without a
    temperature, as in the official code. That code scores in evaluation mode, where norms use their
    initial statistics; here norms use the statistics of each batch, as in training and for the
    other scores.

    Trains: d weights; stores: their positions; needs: dense gradients of second order once, before
    training.

    Rachwan et al., ICML 2022 (arXiv:2206.10451).
    """

    examples: Count = 128  # in each batch
    batches: Count = 5

    def scores(self, net: Net, train: Train) -> Scores:
        pool = batches(train, self.examples, self.batches, self.augment)
        flow = gradient_flow(net, pool, 1.0, partial(train.rounds, what="scoring"))
        return {name: score.abs() for name, score in flow.items()}


@dataclass(frozen=True, kw_only=True)
class ProsPr(Scored):
    """Prune at initialisation by the sensitivity of the loss after a few training steps,
    differentiated through these steps.

        score = |dL(theta_M)/dc| at c = 1;  theta_0 = c * theta,
        theta_{m+1} = theta_m - lr * dL/dtheta_m

    All parameters take the inner steps, by plain gradient descent, as in the official code. With
    train_biases_and_norms=false, biases and norms do not change in them. Each step has its own
    batch.

    Trains: d weights; stores: their positions; needs: dense gradients through a few steps of dense
    training, once.

    Alizadeh et al., ICLR 2022 (arXiv:2202.08132).
    """

    examples: Count = 128
    inner_steps: Step = 3  # M, before the gradient is taken
    inner_lr: NotNegative = 0.1
    first_order: bool = False
    # biases and norms take the inner steps, too
    train_biases_and_norms: bool = True

    def scores(self, net: Net, train: Train) -> Scores:
        pool = batches(train, self.examples, self.inner_steps + 1, self.augment)
        return prospr(
            net,
            pool,
            self.inner_lr,
            self.first_order,
            self.train_biases_and_norms,
            partial(train.rounds, what="scoring"),
        )
