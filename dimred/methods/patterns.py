"""Dynamic sparse training with a pattern that hardware can use."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dimred.coordinates import Coordinates
from dimred.errors import UserError, require
from dimred.maps import straight_through
from dimred.net import Net
from dimred.rewiring import RandomStart, require_fractions, scale_by_fan_in
from dimred.schedules import cosine, require_period
from dimred.scores import magnitude, noise
from dimred.select import largest, topk
from dimred.train import Train

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SRigL(RandomStart):
    """RigL in which all neurons of a layer have the same number of inputs, but for neurons that are
    ablated.

        inputs k = weights of the layer / neurons that live;  a neuron lives if gamma k_0 of its
        weights are salient: among those that RigL keeps, or among the largest gradients;  k_0: k
        where all neurons live

    k is rounded down, as in the official code, so less than one weight a neuron is left unused. A
    neuron may come back. The last layer loses none, and no layer more than its weights can do
    without. Layers that are full are left alone. Where biases and norms are covered, each entry is
    a neuron with one input.

    Trains: d weights, not always the same; stores: as many positions for every neuron, and which
    neurons live; needs: dense gradients in the steps that rewire.

    Lasby, Golubeva, Evci, Nica, Ioannou, ICLR 2024 (arXiv:2305.02299).
    """

    every: int | float  # steps, or a fraction of training
    fraction: float  # alpha
    until: float  # T_end, as a fraction of training
    ablation: float  # gamma; 0 keeps all neurons

    def __post_init__(self) -> None:
        require_period(self.every)
        require_fractions(fraction=self.fraction, until=self.until, ablation=self.ablation)

    def run(self, net: Net, train: Train) -> None:
        draws = noise(net)
        budget = {
            name: len(support)
            for name, support in topk(draws, self.allocation(net, 1 - self.sparsity)).items()
            if support is not None
        }
        net.keep({name: first(rows(draws[name]), count) for name, count in budget.items()})
        if self.scale_fan_in:
            scale_by_fan_in(net)
        due = train.every(self.every, self.until)
        last = [name for name, w in net.weights.items() if w.param.dim() > 1][-1:]
        for t in train.steps(dense_grad=due):
            if due(t) and net.dim < net.total:
                fraction = cosine(self.fraction, 0.0, t / (self.until * len(train)))
                size, gradient = magnitude(net), net.grads()
                changing = [name for name, w in net.weights.items() if 0 < w.dim < w.size]
                ablation = dict.fromkeys(changing, self.ablation) | dict.fromkeys(last, 0.0)
                net.keep(
                    {
                        name: self.rewired(
                            rows(size[name]),
                            rows(gradient[name].abs()),
                            net.weights[name],
                            fraction,
                            budget[name],
                            ablation[name],
                        )
                        for name in changing
                    }
                )
                net.zero_grad()

    def rewired(
        self,
        size: Tensor,
        gradient: Tensor,
        w: Coordinates,
        fraction: float,
        budget: int,
        ablation: float,
    ) -> Tensor:
        """The new support of a layer, from |theta| (-inf where it is not trained) and |dL/dtheta|,
        a row a neuron."""
        drop = int(fraction * w.dim)
        kept = mask(size, w.dim - drop)
        salient = (kept | mask(gradient, drop)).sum(1)
        inputs = fan_in(budget, len(size), size.shape[1])
        alive = (
            salient >= max(1, int(ablation * inputs))
            if ablation
            else torch.ones_like(salient, dtype=torch.bool)
        )
        neurons = min(max(int(alive.sum()), math.ceil(budget / size.shape[1])), budget)
        alive = mask(salient.double() + alive * w.size, neurons)
        inputs = fan_in(budget, neurons, size.shape[1])
        kept &= best_of_rows(size.masked_fill(~kept, -torch.inf), inputs)
        chosen = best_of_rows(gradient.masked_fill(kept, torch.inf), inputs) & alive[:, None]
        return chosen.view(-1).nonzero().view(-1)


def rows(weight: Tensor) -> Tensor:
    """A row for every neuron."""
    return weight.reshape(len(weight), -1)


def first(draws: Tensor, budget: int) -> Tensor:
    """A random support with the same number of inputs for every neuron, or for as many as there are
    weights."""
    neurons = mask(draws[:, 0], budget)
    chosen = (
        best_of_rows(draws, fan_in(budget, int(neurons.sum()), draws.shape[1])) & neurons[:, None]
    )
    return chosen.view(-1).nonzero().view(-1)


def fan_in(budget: int, neurons: int, most: int) -> int:
    return min(most, max(1, budget // neurons)) if neurons else 0


def mask(scores: Tensor, k: int) -> Tensor:
    """True at the k largest."""
    out = torch.zeros_like(scores, dtype=torch.bool)
    out.view(-1)[largest(scores.reshape(-1), k)] = True
    return out


def best_of_rows(scores: Tensor, k: int) -> Tensor:
    """True at the k largest of every row; among equals the first win."""
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True)


@dataclass(frozen=True)
class NM:
    """Of every m weights in a row, use the n largest; all of them learn, and those not used decay.

        E(theta) = theta * (among the n largest of its group);  dL/dtheta <- dL/dE + decay * (theta not used)

    A group is m consecutive inputs of a neuron, channels running fastest (NHWC). Layers whose
    number of inputs is no multiple of m stay dense. Memory and time are those of dense training;
    the network in the end is sparse.

    Trains: all weights, n of m in use; stores: which n of every m, 2 bits for each in use at 2:4;
    needs: dense weights and gradients in every step.

    Zhou et al., ICLR 2021 (arXiv:2102.04010): SR-STE.
    """

    n: int
    m: int
    decay: float  # lambda_W

    def __post_init__(self) -> None:
        require(0 < self.n <= self.m, "method.n, method.m", (self.n, self.m), "0 < n <= m")
        require(self.decay >= 0, "method.decay", self.decay, "0 or more")

    def run(self, net: Net, train: Train) -> None:
        maps = {
            name: LargestOf(self.n, self.m, self.decay)
            for name, w in net.weights.items()
            if w.param.dim() > 1 and math.prod(w.param.shape[1:]) % self.m == 0
        }
        if not maps:
            raise UserError(
                f"no layer has a multiple of method.m={self.m} inputs to a neuron. Choose another method.m "
                "or a model that has some, such as model=resnet20 for method.m=4"
            )
        if dense := [name for name in net.weights if name not in maps]:
            log.warning("dense, for want of a multiple of %d inputs: %s", self.m, ", ".join(dense))
        net.embed(maps)
        train()
        thetas = net.thetas()
        used = {
            name: each.kept(thetas[name]).reshape(-1).nonzero().view(-1)
            for name, each in maps.items()
        }
        net.fold(used)


class LargestOf(nn.Module):
    """The n largest of every m weights, and a penalty on the others."""

    def __init__(self, n: int, m: int, decay: float) -> None:
        super().__init__()
        self.n, self.m, self.decay = n, m, decay

    def kept(self, theta: Tensor) -> Tensor:
        """True at the n largest of every group; among equals the first win."""
        size = theta.detach().abs().movedim(1, -1)
        places = size.reshape(-1, self.m).T.contiguous()  # the i-th of every group, in a row
        ahead = torch.zeros_like(places, dtype=torch.int16)
        for i in range(self.m):
            ahead[:i] += places[i] > places[:i]
            ahead[i + 1 :] += places[i] >= places[i + 1 :]
        return (ahead < self.n).T.reshape(size.shape).movedim(-1, 1)

    def forward(self, theta: Tensor) -> Tensor:
        return straight_through(theta * self.kept(theta), theta)

    def penalty(self, theta: Tensor) -> Tensor:
        return self.decay / 2 * (theta * ~self.kept(theta)).square().sum()
