"""Train the weights with the highest scores. The others stay at their initial value, or decay to
zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dimred.fields import Checked, Count, PositiveFraction, Sparsity
from dimred.net import Net
from dimred.net.coordinates import Supports
from dimred.net.transforms import Masked
from dimred.scores import NAMED, Named, generator, masked, permuted, random_scores
from dimred.select.allocations import Allocation, Global
from dimred.select.topk import topk
from dimred.training.loop import Train
from dimred.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class ByScore(Checked):
    """Train the weights with the highest scores."""

    sparsity: Sparsity = 0.9
    allocation: Allocation = Global()
    score: Named = "snip"
    examples: Count = 128
    # score with crops and flips, as in training
    augment: bool = False

    def choose(self, net: Net, train: Train) -> Supports:
        scores = NAMED[self.score](net, train.sample(self.examples, self.augment))
        return topk(scores, self.allocation(net, 1 - self.sparsity))


@dataclass(frozen=True, kw_only=True)
class FreezeNetWD(ByScore):
    """FreezeNet with frozen weights that decay to zero during training: the final network is
    sparse.

        theta_t = theta_0 * prod_{s < t} (1 - lr_s wd)  outside of the support,  support = top score

    This is the weight decay of SGD without momentum. It is computed by a transform of the initial
    weights, so neither the optimiser nor a checkpoint holds the decaying values. wd is chosen so
    that the product over all steps is final_fraction; with final_fraction=null it is the recipe's
    weight_decay, which decays slowly. In the last step, and in its evaluation, the frozen weights
    are exactly zero.

    Trains: d weights; stores: their positions (those that decay end at zero); needs: dense
    gradients once, before training, and dense weights in every pass.

    Wimmer, Mehnert, Condurache, ACCV 2020 (arXiv:2011.14087); from memory: how they decay is our
    choice."""

    final_fraction: PositiveFraction | None = 0.001

    def run(self, net: Net, train: Train) -> None:
        # frozen at their initial values; the transform below scales them
        net.keep(self.choose(net, train), base="init")
        decaying: dict[str, Decaying] = {}
        for name, w in net.weights.items():
            if w.support is not None:
                decaying[name] = Decaying(w.param)
                decaying[name].keep(w.support)
        net.add_transforms(decaying)
        left = self.left(train.recipe, len(train))
        for t in train.steps():
            last = t == len(train) - 1
            for each in decaying.values():
                each.left.fill_(0.0 if last else float(left[t]))
            if last:
                train.forget_best()  # earlier evaluations were of a dense net
        # the supports of the net, not those chosen above: on a GPU, scores of a resumed run may
        # differ
        net.keep(net.supports, merge=True)

    def left(self, recipe: Recipe, steps: int) -> Tensor:
        """prod_{s <= t} (1 - lr_s wd) for every step t."""
        lr = torch.tensor([recipe.lr_at(t, steps) for t in range(steps)], dtype=torch.float64)
        decay = recipe.weight_decay
        if self.final_fraction is not None:
            # bisection: the product falls as wd grows, and below 1 / max(lr) all of its factors are
            # positive
            low, high = 0.0, 1 / float(lr.max())
            for _ in range(60):
                decay = (low + high) / 2
                enough = torch.log1p(-lr * decay).sum() <= math.log(self.final_fraction)
                low, high = (low, decay) if enough else (decay, high)
        return torch.cumprod(1 - lr * decay, 0)


class Decaying(Masked):
    """theta at `kept`, and `left` times theta elsewhere."""

    left: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self.register_buffer("left", weight.new_ones((), requires_grad=False))

    def forward(self, theta: Tensor) -> Tensor:
        return torch.where(self.kept, theta, theta * self.left)


@dataclass(frozen=True, kw_only=True)
class FreezeNetValues(ByScore):
    """FreezeNet with other values of the frozen weights: an ablation of the properties of random
    weights.

        theta = theta_0 where trained, elsewhere drawn anew with the layer's sigma = sqrt(mean
        theta_0^2): sigma N(0, 1), sigma U(-sqrt 3, sqrt 3), +-sigma, theta_0 in another order,
        theta_0 itself, or 0

    Trains: d weights; stores: their positions, and the values of the others, since torch's
    generator may change between versions (with frozen_values=init, the seed suffices); needs: dense
    gradients once, before training, if the score does, and dense weights in every pass.

    Wimmer, Mehnert, Condurache, ACCV 2020 (arXiv:2011.14087), after their ablation of
    initialisations (from memory)."""

    frozen_values: Literal["init", "shuffled", "gaussian", "uniform", "signed_constant", "zero"] = (
        "signed_constant"
    )

    def run(self, net: Net, train: Train) -> None:
        supports, values = self.choose(net, train), self.random_values(net)
        thetas = net.dense_weights()
        ones = {name: torch.ones_like(value) for name, value in values.items()}
        trained = masked(ones, supports)
        # weights are assigned while all are trained; then the others are frozen at their new values
        net.assign(
            {name: torch.where(trained[name] > 0, thetas[name], values[name]) for name in values}
        )
        net.keep(supports, base="held")
        train()

    def random_values(self, net: Net) -> dict[str, Tensor]:
        """The values of the frozen weights, for every covered weight."""
        thetas, normal = (
            net.dense_weights(),
            {name: draw.to(net.weights[name].param) for name, draw in random_scores(net).items()},
        )
        sigma = {name: theta.square().mean().sqrt() for name, theta in thetas.items()}
        if self.frozen_values == "shuffled":
            return permuted(thetas, generator(net, "order"))
        # erf maps a standard normal to U(-1, 1): all distributions share the same normal draws
        draws = {
            "init": lambda name: thetas[name],
            "gaussian": lambda name: sigma[name] * normal[name],
            "uniform": lambda name: (
                sigma[name] * math.sqrt(3) * torch.erf(normal[name] / math.sqrt(2))
            ),
            "signed_constant": lambda name: torch.where(
                normal[name] < 0, -sigma[name], sigma[name]
            ),
            "zero": lambda name: torch.zeros_like(thetas[name]),
        }
        return {name: draws[self.frozen_values](name) for name in thetas}


@dataclass(frozen=True, kw_only=True)
class DropBack(Checked):
    """Train the weights with the largest accumulated change, chosen at every step; all others
    return to their initial values.

        support_t = top |theta_t - lr dL/dtheta_t - theta_0|,  theta = theta_0 elsewhere, to the bit

    The scores predict the step about to be taken, without momentum and weight decay (the official
    code has neither, and scores after the step). A weight that joins the support takes this step,
    from its initial value. Biases and norms always train; the official code includes them in the
    budget.

    Trains: d weights, not always the same; stores: their positions, and the seed of the others;
    needs: dense gradients in every step that chooses, and dense weights in every pass.

    Golub, Lemieux, Lis, MLSys 2019 (arXiv:1806.06949).
    """

    sparsity: Sparsity = 0.9
    allocation: Allocation = Global()
    update_every: Count = 1  # steps
    # last update of the support, as a fraction of training
    update_until: PositiveFraction = 0.5

    def run(self, net: Net, train: Train) -> None:
        net.cache_initial()  # every step compares with the initial weights
        first = net.initial()
        budget = self.allocation(net, 1 - self.sparsity)

        def due(t: int) -> bool:
            return t % self.update_every == 0 and (t == 0 or t < self.update_until * len(train))

        for t in train.steps(dense_grad=due):
            if due(t):
                # the change after this step: chosen before the step, so a dropped weight takes no
                # step at all
                lr, grads = train.recipe.lr_at(t, len(train)), net.grads()
                moved = {
                    name: (theta - lr * grads[name] - first[name]).abs()
                    for name, theta in net.dense_weights().items()
                }
                net.keep(topk(moved, budget), base="init")
                for name, w in net.weights.items():
                    # weights that join the support take this step, too: keep() gives them a zero
                    # gradient
                    w.psi.grad = w.gather(grads[name].reshape(-1))
