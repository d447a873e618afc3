"""Train a part of the network, chosen by what it is or by a score; the rest stays as it was drawn,
or fades away.

Frozen means not computed: nothing below the first trained layer has a backward pass. The running
statistics of norms that do not train go on following their input, because a random net's would be
of no use as they are at first."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimred.coordinates import Supports
from dimred.errors import UserError, nearest, require
from dimred.maps import Masked
from dimred.net import Net
from dimred.scores import NAMED, Named, generator, masked, noise, redrawn
from dimred.select import Allocation, last_matrix, topk
from dimred.train import Best, Recipe, Train


# -- layers and parts of them --------------------
@dataclass(frozen=True)
class LastLayer:
    """Train the last layer, weight and bias, on random features.

        theta = theta_0 but for the weight and bias of the last Linear (or Conv) layer

    By gradient descent; method elm solves for it.

    Trains: weight and bias of the last layer; stores: the seed of the others; needs: dense weights
    forward, and nothing backward.

    Huang, Zhu, Siew, Neurocomputing 2006 (extreme learning machine).
    """

    def run(self, net: Net, train: Train) -> None:
        freeze_all_but(net, parameters_of(net, last_layer(net)))
        train()


@dataclass(frozen=True)
class ELM:
    """Extreme learning machine: solve for the last layer, by ridge regression on random features.

        beta = (H^T H + ridge I)^-1 H^T Y,  H the inputs of the last layer with a column of ones, Y one-hot labels

    H^T H and H^T Y are summed over the training set, in evaluation mode and in float64; the bias is
    in beta, and so in the penalty. One epoch of forward passes comes first, in which norms find
    their statistics and nothing is trained. The logits regress to 0 and 1, so that their accuracy
    means something and their cross entropy little.

    Trains: weight and bias of the last layer, which are solved for; stores: the seed of the others,
    and the statistics of norms; needs: dense weights forward, no gradients, and the square of the
    last layer's inputs.

    Huang, Zhu, Siew, Neurocomputing 2006; with ridge: Huang, Zhou, Ding, Zhang, IEEE SMC-B 2012
    (from memory)."""

    ridge: float

    def __post_init__(self) -> None:
        require(self.ridge > 0, "method.ridge", self.ridge, "a number above 0")

    def run(self, net: Net, train: Train) -> None:
        layer = net.model.get_submodule(last_layer(net))
        if not isinstance(layer, nn.Linear):
            raise UserError(
                f"method elm solves for a Linear last layer, and that of {type(net.model).__name__} is a "
                f"{type(layer).__name__}. Choose method=last_layer, or a model such as model=lenet300"
            )
        names = parameters_of(net, last_layer(net))
        freeze_all_but(net, names)
        stop = min(train.epoch_steps, len(train))
        for t in train.steps(0, stop):
            net.zero_grad()
            if t == stop - 1:
                beta = self.solve(*moments(net, train, layer))
                with torch.no_grad():
                    for name in names:
                        value = beta[-1] if name.endswith("bias") else beta[: layer.in_features].T
                        net.parameters()[name].copy_(value.reshape(net.parameters()[name].shape))

    def solve(self, gram: Tensor, moment: Tensor) -> Tensor:
        return torch.linalg.solve(gram + self.ridge * torch.eye(len(gram)).to(gram), moment)


def moments(net: Net, train: Train, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """H^T H and H^T Y over the training set in float64, H being the inputs of the layer, and ones
    if it has a bias."""
    inputs: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    net.train(False)
    size = layer.in_features + (layer.bias is not None)
    gram, moment = (
        torch.zeros(size, n, dtype=torch.float64, device=layer.weight.device)
        for n in (size, layer.out_features)
    )
    with torch.no_grad(), net.live():
        for images, labels in train.data.eval_batches("train"):
            net.model(images)
            h = F.pad(inputs.pop().double(), (0, size - layer.in_features), value=1.0)
            gram += h.T @ h
            moment += h.T @ F.one_hot(labels, layer.out_features).to(h)
    net.train()
    hook.remove()
    return gram, moment


@dataclass(frozen=True)
class NormOnly:
    """Train scale and shift of the normalisation layers and nothing else, not even the last layer
    unless told to.

        theta = theta_0 but for gamma, beta;  gamma_0 ~ U(0, 1)

    The paper's variants: `output` trains the last layer, too, and `also` what else it names (its
    shortcuts).

    Trains: scale and shift of norms alone; stores: the seed of all weights; needs: dense weights
    forward and backward, and no gradients of them.

    Frankle, Schwab, Morcos, ICLR 2021 (arXiv:2003.00152).
    """

    gamma: Literal["uniform", "init"]  # gamma_0: U(0, 1), or the model's own
    output: bool
    also: tuple[str, ...]  # regular expressions

    def run(self, net: Net, train: Train) -> None:
        norms = {name for name, m in net.model.named_modules() if isinstance(m, NORMS)}
        parameters = net.parameters()
        trained = [
            name
            for name in parameters
            if name.rpartition(".")[0] in norms and name not in net.fixed
        ]
        if not trained:
            raise UserError(
                f"method norm_only trains normalisation layers, and {type(net.model).__name__} has none "
                "(with scale and shift). Choose a model that has some, such as model=resnet20"
            )
        if self.gamma == "uniform":
            with torch.no_grad():
                for name in trained:
                    if name.endswith("weight"):
                        draws = torch.rand(parameters[name].shape, generator=generator(net, name))
                        parameters[name].copy_(draws)
        trained += matching(net, self.also, "method.also")
        freeze_all_but(
            net, [*trained, *(parameters_of(net, last_layer(net)) if self.output else [])]
        )
        train()


NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class PartialFilters:
    """Train the first few filters of every layer, all biases and norms, and the last layer; the
    rest is random.

        trained = sum ceil(fraction * C_out) * fan_in, and all of the last layer and of `layers`

    A neuron of a Linear layer is a filter, too. With fraction=0 and layers=[stage2] whole layers
    are trained or not.

    Trains: the first filters of each layer, the last layer, biases and norms; stores: the seed of
    the others; needs: dense weights in every pass.

    Rosenfeld, Tsotsos, CRV 2019 (arXiv:1802.00844).
    """

    fraction: float
    layers: tuple[str, ...]  # regular expressions

    def __post_init__(self) -> None:
        require(0 <= self.fraction <= 1, "method.fraction", self.fraction, "a fraction in [0, 1]")

    def run(self, net: Net, train: Train) -> None:
        whole = {*matching(net, self.layers, "method.layers"), *parameters_of(net, last_layer(net))}
        frozen = {}
        for name, w in net.weights.items():
            filters = w.param.shape[0]
            if name not in whole:
                first = math.ceil(self.fraction * filters - 1e-9) * (w.size // filters)
                frozen[name] = torch.arange(first, w.size, device=w.param.device)
        net.freeze(frozen)
        train()


# -- FreezeNet and what becomes of its frozen weights --------------------
@dataclass(frozen=True)
class ByScore:
    """Train the weights with the best scores."""

    sparsity: float
    allocation: Allocation
    score: Named
    examples: int
    # score with crops and flips, as in training
    augment: bool = field(default=False, kw_only=True)

    def choose(self, net: Net, train: Train) -> Supports:
        scores = NAMED[self.score](net, train.sample(self.examples, self.augment))
        return topk(scores, self.allocation(net, 1 - self.sparsity))


@dataclass(frozen=True)
class FreezeNetWD(ByScore):
    """FreezeNet whose frozen weights decay while the others train, and are pruned in the end: a
    sparse net.

        theta_t = theta_0 * prod_{s < t} (1 - lr_s wd)  outside of the support,  support = top score

    This is the decay of SGD without momentum; it is a map, so neither the optimiser nor a
    checkpoint holds what decays. wd is such that the product over all steps is `remainder`; with
    remainder=null it is the recipe's weight_decay, which takes long. The last step, and its
    evaluation, finds the frozen weights at zero; so they end.

    Trains: d weights; stores: their positions (those that decay end at zero); needs: dense
    gradients once, before training, and dense weights in every pass.

    Wimmer, Mehnert, Condurache, ACCV 2020 (arXiv:2011.14087); from memory: how they decay is our
    choice."""

    remainder: float | None

    def __post_init__(self) -> None:
        require(
            self.remainder is None or 0 < self.remainder <= 1,
            "method.remainder",
            self.remainder,
            "null or a fraction in (0, 1]",
        )

    def run(self, net: Net, train: Train) -> None:
        net.keep(self.choose(net, train), base="init")
        maps = {name: Fading(w.param) for name, w in net.weights.items() if w.support is not None}
        for name, fading in maps.items():
            fading.keep(net.weights[name].support)
        net.embed(maps)
        left = self.left(train.recipe, len(train))
        for t in train.steps():
            last = t == len(train) - 1
            for fading in maps.values():
                fading.left.fill_(0.0 if last else float(left[t]))
            if last:
                train.best = Best()  # earlier evaluations were of a dense net
        supports = (
            net.supports
        )  # of the net, not those of above: scores of a resumed run may be others on a GPU
        net.fold(supports)

    def left(self, recipe: Recipe, steps: int) -> Tensor:
        """prod_{s <= t} (1 - lr_s wd) for every step t."""
        lr = torch.tensor([recipe.lr_at(t, steps) for t in range(steps)], dtype=torch.float64)
        decay = recipe.weight_decay
        if self.remainder is not None:
            low, high = 0.0, 1 / float(lr.max())
            for _ in range(60):
                decay = (low + high) / 2
                enough = torch.log1p(-lr * decay).sum() <= math.log(self.remainder)
                low, high = (low, decay) if enough else (decay, high)
        return torch.cumprod(1 - lr * decay, 0)


class Fading(Masked):
    """theta at `kept`, and the fraction `left` of it elsewhere."""

    left: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self.register_buffer("left", weight.new_ones((), requires_grad=False))

    def forward(self, theta: Tensor) -> Tensor:
        return torch.where(self.kept, theta, theta * self.left)


@dataclass(frozen=True)
class FreezeNetValues(ByScore):
    """FreezeNet with other values for the frozen weights, to see what random weights have to be.

        theta = theta_0 where trained, elsewhere drawn anew with the layer's sigma = sqrt(mean
        theta_0^2): sigma N(0, 1), sigma U(-sqrt 3, sqrt 3), +-sigma, theta_0 in another order,
        theta_0 itself, or 0

    Trains: d weights; stores: their positions, and the others too: their draws are torch's, which
    no seed pins for good (nothing but the seed with values=init); needs: dense gradients once,
    before training, if the score does, and dense weights in every pass.

    Wimmer, Mehnert, Condurache, ACCV 2020 (arXiv:2011.14087), after their ablation of
    initialisations (from memory)."""

    values: Literal["init", "shuffled", "gaussian", "uniform", "signed_constant", "zero"]

    def run(self, net: Net, train: Train) -> None:
        supports, values = self.choose(net, train), self.draw(net)
        trained = masked({name: torch.ones_like(value) for name, value in values.items()}, supports)
        with torch.no_grad():
            for name, w in net.weights.items():
                w.psi.copy_(torch.where(trained[name].view(-1) > 0, w.psi, values[name].view(-1)))
        net.keep(supports, base="held")
        train()

    def draw(self, net: Net) -> dict[str, Tensor]:
        thetas, normal = (
            net.thetas(),
            {name: draw.to(net.weights[name].param) for name, draw in noise(net).items()},
        )
        sigma = {name: theta.square().mean().sqrt() for name, theta in thetas.items()}
        if self.values == "shuffled":
            return redrawn(thetas, generator(net, "order"))
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
        return {name: draws[self.values](name) for name in thetas}


@dataclass(frozen=True)
class DropBack:
    """In every step, train the weights that will have moved farthest; the others return to their
    initial values.

        support_t = top |theta_t - lr dL/dtheta_t - theta_0|,  theta = theta_0 elsewhere, to the bit

    The step about to be taken is foreseen without momentum and decay (the official code has
    neither, and looks back at the step taken). A weight that joins takes this step, from its
    initial value. Biases and norms always train; the official code counts them, too.

    Trains: d weights, not always the same; stores: their positions, and the seed of the others;
    needs: dense gradients in every step that chooses, and dense weights in every pass.

    Golub, Lemieux, Lis, MLSys 2019 (arXiv:1806.06949).
    """

    sparsity: float
    allocation: Allocation
    every: int  # steps
    until: float  # from then on, as a fraction of training, the support stays

    def __post_init__(self) -> None:
        require(self.every > 0, "method.every", self.every, "1 or more steps")
        require(
            0 < self.until <= 1, "method.until", self.until, "a fraction of training, in (0, 1]"
        )

    def run(self, net: Net, train: Train) -> None:
        first = {name: value.to(train.device) for name, value in net.initial().items()}
        net.initial = lambda: first  # asked for in every step
        budget = self.allocation(net, 1 - self.sparsity)

        def due(t: int) -> bool:
            return t % self.every == 0 and (t == 0 or t < self.until * len(train))

        for t in train.steps(dense_grad=due):
            if due(t):
                lr, grads = train.recipe.lr_at(t, len(train)), net.grads()
                moved = {
                    name: (theta - lr * grads[name] - first[name]).abs()
                    for name, theta in net.thetas().items()
                }
                net.keep(topk(moved, budget), base="init")
                for name, w in net.weights.items():
                    w.psi.grad = w.gather(grads[name].reshape(-1))


# -- what they share --------------------
def last_layer(net: Net) -> str:
    """The name of the last module with a weight that is more than a vector and that the model has
    not frozen."""
    return last_matrix(net).rpartition(".")[0]


def parameters_of(net: Net, module: str) -> list[str]:
    return [name for name in net.parameters() if name.rpartition(".")[0] == module]


def freeze_all_but(net: Net, trained: Sequence[str]) -> None:
    net.freeze({name: None for name in net.parameters() if name not in trained})


def matching(net: Net, patterns: Sequence[str], key: str) -> list[str]:
    """The parameters whose names match one of these regular expressions. UserError if one of them
    matches none."""
    names: list[str] = []
    for pattern in patterns:
        try:
            found = [name for name in net.parameters() if re.search(pattern, name)]
        except re.error as error:
            raise UserError(f"{key}: {pattern!r} is not a regular expression ({error})") from None
        if not found:
            raise UserError(
                f"{key}: {pattern!r} matches no parameter. {nearest(pattern, net.parameters())}"
            )
        names += found
    return names
