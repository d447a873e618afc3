"""Structured RigL: the same fan-in for every neuron of a layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dimred.fields import Fraction, Period
from dimred.methods.random_start import RandomStart, scale_by_fan_in
from dimred.net import Net
from dimred.net.coordinates import Coordinates
from dimred.scores import magnitude, random_scores
from dimred.select.schedules import cosine
from dimred.select.topk import largest, topk
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class SRigL(RandomStart):
    """Structured RigL: RigL with a constant fan-in in each layer, and ablation of neurons with few
    salient weights.

        fan-in k = weights of the layer / active neurons;  a neuron is active if gamma k_0 of its
        weights are salient: among those that RigL keeps, or among the largest gradients;
        k_0: k with all neurons active

    k is rounded down, as in the official code, so less than one weight a neuron is left unused. An
    ablated neuron may become active again. The last layer loses no neuron, and every layer keeps
    enough neurons for its weights. Dense layers do not change. Where biases and norms are covered,
    each entry is a neuron with one input.

    Trains: d weights, not always the same; stores: as many positions for every neuron, and which
    neurons are active; needs: dense gradients in the steps that update the mask.

    Lasby, Golubeva, Evci, Nica, Ioannou, ICLR 2024 (arXiv:2305.02299).
    """

    update_every: Period = 0.02  # steps, or a fraction of training
    drop_fraction: Fraction = 0.3  # alpha
    update_until: Fraction = 0.75  # T_end, as a fraction of training
    min_salient_fraction: Fraction = 0.3  # gamma; 0 keeps all neurons

    def run(self, net: Net, train: Train) -> None:
        draws = random_scores(net)
        # the number of weights of a layer stays that of the allocation; updates change its neurons
        budget = {
            name: len(support)
            for name, support in topk(draws, self.allocation(net, 1 - self.sparsity)).items()
            if support is not None
        }
        net.keep({name: first(rows(draws[name]), count) for name, count in budget.items()})
        if self.scale_fan_in:
            scale_by_fan_in(net)
        due = train.every(self.update_every, self.update_until)
        # the outputs of the last layer are the classes: none may be ablated
        last = [name for name, w in net.weights.items() if w.param.dim() > 1][-1:]
        for t in train.steps(dense_grad=due):
            if due(t) and net.dim < net.total:
                fraction = cosine(self.drop_fraction, 0.0, t / (self.update_until * len(train)))
                size, gradient = magnitude(net), net.grads()
                changing = [name for name, w in net.weights.items() if 0 < w.dim < w.size]
                ablation = dict.fromkeys(changing, self.min_salient_fraction) | dict.fromkeys(
                    last, 0.0
                )
                net.keep(
                    {
                        name: self.updated_support(
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

    def updated_support(
        self,
        size: Tensor,
        gradient: Tensor,
        w: Coordinates,
        fraction: float,
        budget: int,
        ablation: float,
    ) -> Tensor:
        """The new support of a layer, from |theta| (-inf at untrained weights) and |dL/dtheta|,
        both with one row for each neuron."""
        # salient weights: those that RigL keeps by magnitude, and the largest gradients
        drop = int(fraction * w.dim)
        kept = mask(size, w.dim - drop)
        salient = (kept | mask(gradient, drop)).sum(1)
        inputs = fan_in(budget, len(size), size.shape[1])
        alive = (
            salient >= max(1, int(ablation * inputs))
            if ablation
            else torch.ones_like(salient, dtype=torch.bool)
        )
        # enough neurons to place all weights, and at most one neuron for each weight
        neurons = min(max(int(alive.sum()), math.ceil(budget / size.shape[1])), budget)
        # active neurons first, then those with the most salient weights: the sum ranks in this
        # order, because no neuron has more than w.size salient weights
        alive = mask(salient.double() + alive * w.size, neurons)
        inputs = fan_in(budget, neurons, size.shape[1])
        # a neuron keeps at most the new fan-in, by magnitude
        kept &= best_of_rows(size.masked_fill(~kept, -torch.inf), inputs)
        # kept weights are chosen before all others, and gradients fill the rest of each row
        chosen = best_of_rows(gradient.masked_fill(kept, torch.inf), inputs) & alive[:, None]
        return chosen.view(-1).nonzero().view(-1)


def rows(weight: Tensor) -> Tensor:
    """A matrix with one row for each neuron."""
    return weight.reshape(len(weight), -1)


def first(draws: Tensor, budget: int) -> Tensor:
    """A random support with the same fan-in for every neuron, or, if the budget is smaller than the
    number of neurons, with one input for as many neurons as there are weights."""
    neurons = mask(draws[:, 0], budget)
    chosen = (
        best_of_rows(draws, fan_in(budget, int(neurons.sum()), draws.shape[1])) & neurons[:, None]
    )
    return chosen.view(-1).nonzero().view(-1)


def fan_in(budget: int, neurons: int, most: int) -> int:
    """The number of inputs of each neuron: at least 1 and at most `most`."""
    return min(most, max(1, budget // neurons)) if neurons else 0


def mask(scores: Tensor, k: int) -> Tensor:
    """True at the k largest scores."""
    out = torch.zeros_like(scores, dtype=torch.bool)
    out.view(-1)[largest(scores.reshape(-1), k)] = True
    return out


def best_of_rows(scores: Tensor, k: int) -> Tensor:
    """True at the k largest scores of every row; among equal scores the first are chosen."""
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True)
