"""Train whole layers, norms or filters, and freeze the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimred.errors import UserError
from dimred.fields import Checked, Fraction, Positive
from dimred.net import Net
from dimred.net.layers import NORMS, last_layer, matching, parameters_of
from dimred.scores import generator
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class LastLayer(Checked):
    """Train the last layer alone, on random features.

        theta = theta_0 except for the weight and bias of the last Linear (or Conv) layer

    Trained by gradient descent; method elm solves for the last layer instead. With norm_eval, norms
    use their running statistics in training, too, and do not change them, as in linear probing of
    pretrained models (MoCo's protocol). Without it they normalise by the batch.

    Trains: weight and bias of the last layer; stores: the seed of the others; needs: dense weights
    in the forward pass, and no backward pass through them.

    Huang, Zhu, Siew, Neurocomputing 2006 (extreme learning machine).
    """

    norm_eval: bool = False  # norms use running statistics in training

    def run(self, net: Net, train: Train) -> None:
        freeze_all_but(net, parameters_of(net, last_layer(net)))
        if self.norm_eval:
            buffers = [name for name, _ in net.model.named_buffers()]
            net.freeze(dict.fromkeys(name for name in buffers if name.endswith("running_mean")))
        train()


@dataclass(frozen=True, kw_only=True)
class ELM(Checked):
    """Extreme learning machine: solve for the last layer by ridge regression on random features.

        beta = (H^T H + ridge I)^-1 H^T Y,  H the inputs of the last layer with a column of ones,
        Y one-hot labels

    H^T H and H^T Y are summed over the training set, in evaluation mode and in float64. The bias is
    part of beta, so the ridge penalises it too. An epoch of forward passes estimates the statistics
    of norms first; nothing is trained in it. The logits are regressed on labels 0 and 1: their
    accuracy is meaningful, their cross-entropy is not.

    Trains: weight and bias of the last layer, in closed form; stores: the seed of the others, and
    the statistics of norms; needs: dense weights in the forward pass, no gradients, and a square
    matrix of the size of the last layer's inputs.

    Huang, Zhu, Siew, Neurocomputing 2006; with ridge: Huang, Zhou, Ding, Zhang, IEEE SMC-B 2012
    (from memory)."""

    ridge: Positive = 1.0

    def run(self, net: Net, train: Train) -> None:
        layer = net.model.get_submodule(last_layer(net))
        if not isinstance(layer, nn.Linear):
            raise UserError(
                "method elm solves for a Linear last layer, and the last layer of "
                f"{type(net.model).__name__} is a {type(layer).__name__}. "
                "Choose method=last_layer, or a model such as model=lenet300"
            )
        names = parameters_of(net, last_layer(net))
        freeze_all_but(net, names)
        # an epoch of steps without gradients: only the statistics of norms change
        stop = min(train.epoch_steps, len(train))
        for t in train.steps(0, stop):
            net.zero_grad()
            # before the last step ends, so that its evaluation is that of the solved layer
            if t == stop - 1:
                beta = self.solve(*moments(net, train, layer))
                with torch.no_grad():
                    for name in names:
                        value = beta[-1] if name.endswith("bias") else beta[: layer.in_features].T
                        net.parameters()[name].copy_(value.reshape(net.parameters()[name].shape))

    def solve(self, gram: Tensor, moment: Tensor) -> Tensor:
        return torch.linalg.solve(gram + self.ridge * torch.eye(len(gram)).to(gram), moment)


def moments(net: Net, train: Train, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """H^T H and H^T Y over the training set in float64. H has the inputs of the layer and, if the
    layer has a bias, a column of ones."""
    inputs: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    net.train(False)
    size = layer.in_features + (layer.bias is not None)
    # in float64, since the condition number of H^T H is the square of that of H
    gram, moment = (
        torch.zeros(size, n, dtype=torch.float64, device=layer.weight.device)
        for n in (size, layer.out_features)
    )
    with torch.no_grad(), net.weights_in_place():
        for images, labels in train.data.eval_batches("train"):
            net.model(images)
            h = F.pad(inputs.pop().double(), (0, size - layer.in_features), value=1.0)
            gram += h.T @ h
            moment += h.T @ F.one_hot(labels, layer.out_features).to(h)
    net.train()
    hook.remove()
    return gram, moment


@dataclass(frozen=True, kw_only=True)
class NormOnly(Checked):
    """Train only the scales and shifts of normalisation layers.

        theta = theta_0 except for gamma, beta;  gamma_0 ~ U(0, 1)

    The paper's variants: train_output_layer also trains the last layer, and also_train more
    parameters (in the paper, the shortcuts).

    Trains: scale and shift of norms alone; stores: the seed of all weights; needs: dense weights
    forward and backward, and no gradients of them.

    Frankle, Schwab, Morcos, ICLR 2021 (arXiv:2003.00152).
    """

    gamma_init: Literal["uniform", "init"] = "uniform"  # gamma_0: U(0, 1), or the model's own
    train_output_layer: bool = False
    also_train: tuple[str, ...] = ()  # regular expressions

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
                "method norm_only trains normalisation layers, and "
                f"{type(net.model).__name__} has none (with scale and shift). "
                "Choose a model that has some, such as model=resnet20"
            )
        if self.gamma_init == "uniform":
            with torch.no_grad():
                for name in trained:
                    if name.endswith("weight"):
                        draws = torch.rand(parameters[name].shape, generator=generator(net, name))
                        parameters[name].copy_(draws)
        trained += matching(self.also_train, parameters, "method.also_train")
        if self.train_output_layer:
            trained += parameters_of(net, last_layer(net))
        freeze_all_but(net, trained)
        train()


@dataclass(frozen=True, kw_only=True)
class PartialFilters(Checked):
    """Train the first filters of every layer, all biases and norms, and the last layer; freeze the
    other filters at their initial values.

        trained = sum ceil(fraction * C_out) * fan_in, and all of the last layer and of train_whole

    A neuron of a Linear layer counts as a filter. With fraction=0 and train_whole=[stage2], whole
    layers are trained or frozen.

    Trains: the first filters of each layer, the last layer, biases and norms; stores: the seed of
    the others; needs: dense weights in every pass.

    Rosenfeld, Tsotsos, CRV 2019 (arXiv:1802.00844).
    """

    fraction: Fraction = 0.1
    train_whole: tuple[str, ...] = ()  # regular expressions

    def run(self, net: Net, train: Train) -> None:
        whole = {
            *matching(self.train_whole, net.parameters(), "method.train_whole"),
            *parameters_of(net, last_layer(net)),
        }
        frozen = {}
        for name, w in net.weights.items():
            filters = w.param.shape[0]
            if name not in whole:
                # 0.07 * 100 = 7.000000000000001 is 7 filters, not 8
                first = math.ceil(self.fraction * filters - 1e-9) * (w.size // filters)
                frozen[name] = torch.arange(first, w.size, device=w.param.device)
        net.freeze(frozen)
        train()


def freeze_all_but(net: Net, trained: Sequence[str]) -> None:
    net.freeze({name: None for name in net.parameters() if name not in trained})
