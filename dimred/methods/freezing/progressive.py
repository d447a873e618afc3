"""Freeze one layer after another during training, from the first to the last.

A layer is a covered weight with the biases and norms that follow it, up to the next covered weight,
in the order of the model. A frozen layer has no backward pass. Its norms use their running
statistics unchanged, in training too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dimred.fields import Checked, Count, PositiveFraction, within
from dimred.net import Net
from dimred.net.layers import layers_of
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class FreezeOut(Checked):
    """Anneal the learning rate of each layer to zero, early layers first, and then freeze the
    layer.

        lr_i(t) = lr_i / 2 (1 + cos(pi t / t_i)),  t_i = (t_0 + (1 - t_0) i / L)^3,  lr_i = lr / t_i

    This replaces the recipe's learning rate schedule. t_0 is the value before it is cubed. Without
    scale_lr, lr_i = lr. The paper omits the factor 1/2 (according to the official README). Norms of
    frozen layers use their running statistics.

    Trains: all weights at first, ever fewer of the first layers; stores: nothing: the net is dense;
    needs: dense weights, and dense gradients of the layers that train.

    Brock, Lim, Ritchie, Weston, 2017 (arXiv:1706.04983).
    """

    t_0: PositiveFraction = 0.8  # when the first layer freezes, before it is cubed
    cubic: bool = True
    scale_lr: bool = True

    def end(self, i: int, layers: int) -> float:
        """t_i of layer i, as a fraction of training."""
        end = self.t_0 + (1 - self.t_0) * i / (layers - 1) if layers > 1 else 1.0
        return end**3 if self.cubic else end

    def lr(self, t: float, end: float) -> float:
        """The learning rate of a layer at time t, in units of lr. t and `end`, when the layer
        freezes, are fractions of training."""
        return (
            0.0
            if t >= end
            else (1 + math.cos(math.pi * t / end)) / (2 * end if self.scale_lr else 2)
        )

    def run(self, net: Net, train: Train) -> None:
        layers = layers_of(net)
        for t in train.steps():
            now, recipe = t / len(train), train.recipe.lr_at(t, len(train)) / train.recipe.lr
            scales: dict[str, float] = {}
            for i, names in enumerate(layers):
                end = self.end(i, len(layers))
                if now >= end and trains(net, names):
                    net.freeze(dict.fromkeys(names))
                # scale_lr multiplies the recipe's learning rate, so its schedule is divided out
                scale = self.lr(now, end) / recipe if recipe else 0.0
                scales |= {
                    name: scale for name in names if name in net.weights or name in net.uncovered
                }
            train.scale_lr(scales)


@dataclass(frozen=True, kw_only=True)
class AutoFreeze(Checked):
    """At regular intervals, freeze the first layers, as long as their gradients have changed less
    than a percentile of the changes of all layers that train.

        eta_l = | |D_l|_1 - |D_l'|_1 | / |D_l'|_1,
        D_l and D_l' the sums of gradients over this interval and the previous one;
        freeze the first of the layers that train while eta_l < their percentile

    The method is made for fine-tuning transformers, where a layer is a block. The last layer is
    never frozen. Norms of frozen layers use their running statistics.

    Trains: all weights at first, ever fewer of the first layers; stores: nothing: the net is dense;
    needs: dense weights, and dense gradients of the layers that train, summed over two intervals.

    Liu, Agarwal, Venkataraman, 2021 (arXiv:2102.01386); the norm is that of the official code.
    """

    intervals: Count = 10  # equal parts of training
    percentile: Annotated[int | float, within("[0, 100]")] = 50

    def run(self, net: Net, train: Train) -> None:
        every = max(1, len(train) // self.intervals)
        for t in train.steps():
            for name, w in net.weights.items():
                if w.psi.grad is not None and w.dim:
                    so_far = net.method_state.get(f"gradients/{name}")
                    net.method_state[f"gradients/{name}"] = (
                        w.psi.grad.clone() if so_far is None else so_far + w.psi.grad
                    )
            if (t + 1) % every == 0:
                active = [names for names in layers_of(net) if trains(net, names)]
                before = net.method_state.pop("norms", None)
                now = torch.stack([self.norm(net, names) for names in active])
                count = 0 if before is None else self.count_converged(before, now)
                for names in active[:count]:
                    net.freeze(dict.fromkeys(names))
                # the layers that still train, in the order of `active` at the next interval
                net.method_state["norms"] = now[count:]
        # the sums are not part of the finished network
        net.method_state.clear()

    def norm(self, net: Net, names: list[str]) -> Tensor:
        """|D_l|_1 of a layer. Resets its sums for the next interval."""
        sums = [
            net.method_state.pop(key)
            for name in names
            if (key := f"gradients/{name}") in net.method_state
        ]
        norm = torch.zeros((), dtype=torch.float64, device=next(net.model.parameters()).device)
        return norm + sum(total.abs().sum(dtype=torch.float64) for total in sums)

    def count_converged(self, before: Tensor, now: Tensor) -> int:
        """The number of first layers to freeze: those before the first layer that has changed as
        much as the percentile."""
        # 0/0 is a layer without gradients, which does not change
        eta = ((before - now).abs() / before).nan_to_num(nan=0.0)
        # a cumulative product: freezing saves a backward pass only for the first layers without
        # gaps
        return int((eta < torch.quantile(eta, self.percentile / 100)).long().cumprod(0).sum())


# -- shared --------------------
def trains(net: Net, names: list[str]) -> bool:
    return any(net.weights[name].dim for name in names if name in net.weights)
