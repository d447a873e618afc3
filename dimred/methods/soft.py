"""Between what is trained and what the model uses: thresholds, gates, penalties and powers of the
weights.

How sparse thresholds, gates and penalties make a network is learned, steered by a parameter of the
paper's. To be comparable, each of these methods ends with exactly the sparsity that was asked for:
after the fraction `until` of training, the weights with the largest margin stay, those furthest
inside (or least outside) what the method itself would keep, and are trained without the map for
what is left. Where the method found that sparsity by itself, the choice is its own; the result's
`measures` say how far it came (`own_density`, `left_to_cut`), and a warning says if that was not
far enough.

Strengths are those of the whole soft phase: in each of its steps a penalty counts by its strength
over their number. So a longer training is not a sparser one. The papers give strengths per step:
multiply these by the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimred.errors import require
from dimred.maps import Gated, straight_through
from dimred.net import Net
from dimred.own_density import note_own_density
from dimred.schedules import cubic, require_period
from dimred.select import Allocation, topk
from dimred.train import Train


@dataclass(frozen=True)
class Emergent:
    """A soft phase, then exactly the weights with the largest margin."""

    sparsity: float
    allocation: Allocation
    until: float  # the end of the soft phase, as a fraction of training

    strength: ClassVar[str]  # the field by which more weights are pruned

    def __post_init__(self) -> None:
        require(
            0 < self.until <= 1, "method.until", self.until, "a fraction of training, in (0, 1]"
        )

    def stop(self, train: Train) -> int:
        return round(self.until * len(train))

    def per_step(self, train: Train, strength: float) -> float:
        """The part of a strength that a step of the soft phase has."""
        return strength / max(1, self.stop(train))

    @torch.no_grad()
    def used(self, net: Net) -> int:
        """How many weights the method itself would keep."""
        return sum(
            int(net.maps[name](theta).count_nonzero()) for name, theta in net.thetas().items()
        )

    def settle(self, net: Net, train: Train, margins: Mapping[str, Tensor]) -> None:
        """Keep exactly the weights with the largest margins, and train them to the end."""
        density, advice = 1 - self.sparsity, f"Choose a larger method.{self.strength}"
        train.once(lambda: note_own_density(net, self.used(net), density, advice))
        chosen = topk(margins, self.allocation(net, density))
        net.fold(chosen)
        train(self.stop(train))


# -- thresholds --------------------
@dataclass(frozen=True)
class STR(Emergent):
    """Shrink all weights of a layer by one threshold, which is learned with them.

        E(psi) = sign(psi) max(0, |psi| - sigmoid(s)),  one s for each weight tensor;  margin |psi| - sigmoid(s)

    The weight decay of s, which draws thresholds towards 1/2, controls how sparse it becomes. In
    the paper it is that of the weights (start -3200, 2e-5 a step for 90 % of ResNet-50 in 100
    epochs).

    Trains: all weights and a threshold for each tensor, after the soft phase d weights; stores:
    their positions; needs: dense weights and gradients in the soft phase.

    Kusupati, Ramanujan, Somani, Wortsman, Jain, Kakade, Farhadi, ICML 2020 (arXiv:2002.03231).
    """

    start: float  # of every s
    decay: float  # of s

    strength: ClassVar[str] = "decay"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.decay >= 0, "method.decay", self.decay, "0 or more")

    def run(self, net: Net, train: Train) -> None:
        maps = {name: SoftThreshold(w.param, self.start) for name, w in net.weights.items()}
        net.embed(maps, decay=self.per_step(train, self.decay))
        train(0, self.stop(train))
        self.settle(
            net, train, {name: maps[name].margin(theta) for name, theta in net.thetas().items()}
        )


class SoftThreshold(nn.Module):
    numbers = "thresholds"

    def __init__(self, weight: Tensor, start: float) -> None:
        super().__init__()
        self.s = nn.Parameter(weight.new_full((1,), start))

    def forward(self, theta: Tensor) -> Tensor:
        return theta.sign() * F.relu(theta.abs() - self.s.sigmoid())

    @torch.no_grad()
    def margin(self, theta: Tensor) -> Tensor:
        return theta.abs() - self.s.sigmoid()


@dataclass(frozen=True)
class DST(Emergent):
    """Zero the weights below the threshold of their neuron or filter; thresholds are trained with
    the weights.

        E(psi) = psi * step(|psi| - tau_row);  loss + alpha * sum exp(-tau)

    margin: |psi| where it exceeds tau_row, else |psi| - tau_row.

    The step's derivative is taken as 2 - 4|x| for |x| <= 0.4, 0.4 for 0.4 < |x| <= 1, and 0 beyond.
    Where no more than 1 % of a layer are left, its thresholds go back to 0. alpha controls how
    sparse it becomes (the official code has 5e-4 a step for LeNets, 5e-6 for VGG-16); thresholds do
    not decay.

    Trains: all weights and a threshold for each neuron, after the soft phase d weights; stores:
    their positions; needs: dense weights and gradients in the soft phase.

    Liu, Xu, Shi, Cheung, So, ICLR 2020 (arXiv:2005.06870).
    """

    alpha: float

    strength: ClassVar[str] = "alpha"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.alpha >= 0, "method.alpha", self.alpha, "0 or more")

    def run(self, net: Net, train: Train) -> None:
        alpha = self.per_step(train, self.alpha)
        maps = {name: RowThresholds(w.param, alpha) for name, w in net.weights.items()}
        net.embed(maps, decay=0.0)
        for _ in train.steps(0, self.stop(train)):
            for name, theta in net.thetas().items():
                maps[name].reopen(theta)
        self.settle(
            net, train, {name: maps[name].margin(theta) for name, theta in net.thetas().items()}
        )


class RowThresholds(nn.Module):
    numbers = "thresholds"

    def __init__(self, weight: Tensor, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.tau = nn.Parameter(weight.new_zeros(len(weight), *[1] * (weight.dim() - 1)))

    def forward(self, theta: Tensor) -> Tensor:
        return theta * step(theta.abs() - self.tau)

    def penalty(self, theta: Tensor) -> Tensor:
        return self.alpha * (-self.tau).exp().sum()

    @torch.no_grad()
    def margin(self, theta: Tensor) -> Tensor:
        return torch.where(theta.abs() > self.tau, theta.abs(), theta.abs() - self.tau)

    @torch.no_grad()
    def reopen(self, theta: Tensor) -> None:
        self.tau.mul_((theta.abs() > self.tau).to(theta.dtype).mean() > 0.01)


def step(x: Tensor) -> Tensor:
    """1 where x > 0, else 0; its derivative is a hat with long brims."""
    size = x.detach().abs()
    slope = torch.where(size <= 0.4, 2 - 4 * size, 0.4 * (size <= 1).to(x.dtype))
    return straight_through((x > 0).to(x.dtype), slope * x)


# -- gates --------------------
@dataclass(frozen=True)
class Movement:
    """Keep the weights that moved away from zero: scores learn, through the mask, where growing a
    weight helps.

        E(psi) = psi * m,  m = 1 at the largest S of each layer;  dL/dS := dL/dE * psi,  so S = -lr sum dL/dE * psi

    The density falls as in gradual magnitude pruning between `begin` and `end`, and stays; scores
    and weights train all the time. Made for fine-tuning pretrained networks.

    Trains: all weights and a score for each, in the end d weights; stores: their positions; needs:
    dense weights, scores and their gradients until it is as sparse as it will be.

    Sanh, Wolf, Rush, NeurIPS 2020 (arXiv:2005.07683).
    """

    sparsity: float
    allocation: Allocation
    begin: float  # of pruning, as a fraction of training
    end: float
    every: int | float  # steps, or a fraction of training
    lr: float  # of the scores, as a multiple of the learning rate

    def __post_init__(self) -> None:
        require(
            0 <= self.begin < self.end < 1,
            "method.begin, method.end",
            (self.begin, self.end),
            "0 <= begin < end < 1",
        )
        require_period(self.every)
        require(self.lr > 0, "method.lr", self.lr, "a number above 0")

    def run(self, net: Net, train: Train) -> None:
        gates = {name: Gated(w.param) for name, w in net.weights.items()}
        net.embed(gates, lr=self.lr, decay=0.0)
        total = len(train)
        begin, end = int(self.begin * total), int(self.end * total)
        period = train.period(self.every)
        for t in train.steps():
            if t >= begin and (t % period == 0 or t == total - 1):
                density = cubic(
                    self.sparsity, min(1.0, (t - begin) / (end - begin)) if end > begin else 1.0
                )
                for name, support in topk(scores_of(gates), self.allocation(net, density)).items():
                    gates[name].keep(support)
        used = {name: gate.kept.view(-1).nonzero().view(-1) for name, gate in gates.items()}
        net.fold(used)


@dataclass(frozen=True)
class SoftMovement(Emergent):
    """Movement pruning with a threshold in place of a count: it learns how many
    weights to keep, with a penalty on their number.

        E(psi) = psi * [sigmoid(S) > tau];  loss + price * sum sigmoid(S);  dL/dS := dL/dE * psi;  margin S

    tau and the price rise together from 0, as the sparsity does in gradual pruning, until the soft
    phase ends. The price controls how sparse it becomes. The official code averages within layers
    where the paper and we sum.

    Trains: all weights and a score for each, after the soft phase d weights; stores: their
    positions; needs: dense weights, scores and their gradients in the soft phase.

    Sanh, Wolf, Rush, NeurIPS 2020 (arXiv:2005.07683).
    """

    tau: float
    price: float
    lr: float  # of the scores, as a multiple of the learning rate

    strength: ClassVar[str] = "price"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 <= self.tau < 0.5,
            "method.tau",
            self.tau,
            "a number in [0, 0.5): sigmoid(S) starts at 0.5",
        )
        require(self.price >= 0, "method.price", self.price, "0 or more")
        require(self.lr > 0, "method.lr", self.lr, "a number above 0")

    def run(self, net: Net, train: Train) -> None:
        price = self.per_step(train, self.price)
        gates = {name: SigmoidGate(w.param, self.tau, price) for name, w in net.weights.items()}
        net.embed(gates, lr=self.lr, decay=0.0)
        stop = self.stop(train)
        for t in train.steps(0, stop):
            for gate in gates.values():
                gate.rise.fill_(1 - cubic(1.0, (t + 1) / stop))
        self.settle(net, train, scores_of(gates))


class SigmoidGate(Gated):
    """Open where sigmoid(score) exceeds the threshold. tau and price come in as `rise` goes from 0
    to 1."""

    rise: Tensor

    def __init__(self, weight: Tensor, tau: float, price: float) -> None:
        super().__init__(weight)
        self.tau, self.price = tau, price
        self.register_buffer("rise", weight.new_zeros(()))

    def forward(self, theta: Tensor) -> Tensor:
        self.kept = self.score.detach().sigmoid() > self.rise * self.tau
        return super().forward(theta)

    def penalty(self, theta: Tensor) -> Tensor:
        return self.rise * self.price * self.score.sigmoid().sum()


def scores_of(gates: Mapping[str, Gated]) -> dict[str, Tensor]:
    return {name: gate.score.detach() for name, gate in gates.items()}


# -- penalties --------------------
@dataclass(frozen=True)
class HALO(Emergent):
    """A lasso with a weight of its own for every parameter, learned as well, which spares what is
    large.

        loss + xi * sum |psi_j| / lambda_j^2 + price * sum |lambda_j|,  lambda_j from 1;  margin |psi|

    At the best lambda that is 1.5 price (2 xi |psi| / price)^(1/3), a concave penalty. xi and the
    price (psi in the paper) control how small weights become; none becomes zero by itself, and
    those smaller than `tolerance` count as pruned. The paper prunes at the end without fine-tuning
    (until=1), covers convolutions alone, and has xi = price = 1e-8 a step for 160 epochs; the
    official code counts weights below 1e-5 as zero, for which a learning rate must have become
    small.

    Trains: all weights and a lambda for each, after the penalty d weights; stores: their positions;
    needs: dense weights, lambdas and their gradients while there is a penalty.

    Seto, Wells, Zhang, 2020 (arXiv:2008.10183).
    """

    xi: float
    price: float
    tolerance: float  # of |psi|

    strength: ClassVar[str] = "xi"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.xi >= 0 and self.price >= 0,
            "method.xi, method.price",
            (self.xi, self.price),
            "0 or more",
        )
        require(self.tolerance >= 0, "method.tolerance", self.tolerance, "0 or more")

    def used(self, net: Net) -> int:
        return sum(int((theta.abs() > self.tolerance).sum()) for theta in net.thetas().values())

    def run(self, net: Net, train: Train) -> None:
        xi, price = self.per_step(train, self.xi), self.per_step(train, self.price)
        net.embed({name: AdaptiveLasso(w.param, xi, price) for name, w in net.weights.items()})
        train(0, self.stop(train))
        self.settle(net, train, {name: theta.abs() for name, theta in net.thetas().items()})


class AdaptiveLasso(nn.Module):
    """The identity, with a penalty."""

    numbers = "penalty weights"

    def __init__(self, weight: Tensor, xi: float, price: float) -> None:
        super().__init__()
        self.xi, self.price = xi, price
        self.scale = nn.Parameter(torch.ones_like(weight, requires_grad=False))  # lambda

    def forward(self, theta: Tensor) -> Tensor:
        return theta

    def penalty(self, theta: Tensor) -> Tensor:
        return self.xi * (theta.abs() / self.scale**2).sum() + self.price * self.scale.abs().sum()


# -- powers --------------------
@dataclass(frozen=True)
class PowerProp:
    """Train a root of every weight, so that large weights learn faster than small ones, and prune
    by any method.

        theta = phi |phi|^(alpha - 1),  phi_0 = sign(w_0) |w_0|^(1 / alpha);  gradient g alpha |phi|^(alpha - 1)

    An option of every method, which then sees phi: magnitudes rank as those of weights do, and so
    do phi * dL/dphi = alpha w * dL/dw. alpha = 1 changes nothing. For alpha > 1 a weight at zero
    has no gradient and stays there: methods that grow weights from zero do not go with it, and a
    warning says so. Weight decay acts on phi. The last layer is pruned as the others are, where the
    paper halves its sparsity.

    Trains: what the method trains, as roots; stores: what the method stores; needs: what the method
    needs.

    Schwarz, Jayakumar, Pascanu, Latham, Teh, NeurIPS 2021 (arXiv:2110.00296).
    """

    alpha: float

    def __post_init__(self) -> None:
        require(self.alpha >= 1, "basis.alpha", self.alpha, "1 or more")

    def apply(self, net: Net) -> None:
        net.span({name: Power(self.alpha) for name in net.weights})


class Power(nn.Module):
    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha, self.still_at_zero = alpha, alpha > 1

    def forward(self, phi: Tensor) -> Tensor:
        return phi if self.alpha == 1 else phi.sign() * phi.abs() ** self.alpha

    def coefficients(self, weight: Tensor) -> Tensor:
        return weight if self.alpha == 1 else weight.sign() * weight.abs() ** (1 / self.alpha)
