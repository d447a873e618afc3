"""Ways to take a training step: dense PyTorch, dimred, and other sparse libraries."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import peers
import torch
import torch.nn.functional as F
from nets import MODELS, Batch, covered, sgd, state_size, training
from torch import nn
from turns import Step

from dimred.net import Net
from dimred.net.state import state_bytes
from dimred.scores import random_scores
from dimred.select.topk import topk
from dimred.training.arithmetic import Arithmetic
from dimred.training.recipe import Recipe


class Candidate(NamedTuple):
    step: Step
    #: bytes of weights, gradients, momentum and positions, once a step is taken
    state: Callable[[], int]


Make = Callable[[nn.Module, Batch], Candidate]


# -- dense PyTorch --------------------
def dense(compute: Callable[[nn.Module], Callable[..., torch.Tensor]]) -> Make:
    """compute: what a step calls instead of the model."""

    def make(model: nn.Module, batch: Batch) -> Candidate:
        optimizer, weights = sgd(model.parameters()), [each.weight for each in covered(model)]
        step = training(compute(model), optimizer, batch)
        return Candidate(step, lambda: state_size(weights, optimizer))

    return make


def channels_last(model: nn.Module, batch: Batch) -> Candidate:
    images, labels = batch
    model = model.to(memory_format=torch.channels_last)
    return DENSE["plain"](model, (images.to(memory_format=torch.channels_last), labels))


def onednn(model: nn.Module, batch: Batch) -> Candidate:
    """Activations in the layouts of oneDNN."""
    images, labels = batch
    make = dense(lambda model: lambda images: model(images).to_dense())
    return make(model, (images.to_mkldnn(), labels))


DENSE: dict[str, Make] = {
    "plain": dense(lambda model: model),
    "channels_last": channels_last,
    "oneDNN": onednn,
    "compiled": dense(torch.compile),
}


# -- sparse --------------------
def dimred(density: float, kind: str) -> Make:
    """With the recipes' default layout."""

    def make(model: nn.Module, batch: Batch) -> Candidate:
        net, recipe = Net(model, initial=dict), Recipe(arithmetic=kind)
        net.keep(topk(random_scores(net), round(density * net.total)))
        net.optimizer = optimizer = sgd(net.parameters().values())
        arithmetic = Arithmetic(net, recipe)
        images, labels = batch

        def gradients() -> None:
            with net.weights_in_place(channels_last=True) as live:
                F.cross_entropy(recipe.logits(live, images), labels).backward()

        def step() -> None:
            optimizer.zero_grad()
            arithmetic.prepare(gradients)
            gradients()
            optimizer.step()

        return Candidate(step, partial(state_bytes, net))

    return make


def peer(sparse: peers.Make, density: float) -> Make:
    def make(model: nn.Module, batch: Batch) -> Candidate:
        model = sparse(model, density)
        optimizer = sgd(model.parameters())
        weights = [each for each in model.parameters() if each.numel() > 10]
        step = training(model, optimizer, batch)
        return Candidate(step, lambda: state_size(weights, optimizer) + peers.positions(model))

    return make


def sparse(name: str, density: float) -> dict[str, Make]:
    """Of the model of this name, by the name of the candidate."""
    found = {"dimred auto": dimred(density, "auto")}
    if not any(isinstance(layer, nn.Conv2d) for layer in covered(MODELS[name].build())):
        found |= {who: peer(make, density) for who, make in peers.installed().items()}
    return found
