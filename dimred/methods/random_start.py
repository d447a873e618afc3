"""The random sparse initial network of sparse training methods."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dimred.errors import UserError
from dimred.fields import Checked, Sparsity
from dimred.net import Net
from dimred.scores import random_scores
from dimred.select.allocations import ERK, Allocation
from dimred.select.topk import topk


@dataclass(frozen=True, kw_only=True)
class RandomStart(Checked):
    """Methods that start from a random sparse network; the allocation gives the density of each
    layer."""

    sparsity: Sparsity = 0.9
    allocation: Allocation = ERK()
    # divide weights by sqrt(density of their neuron)
    scale_fan_in: bool = False

    def keep_random(self, net: Net, sparsity: float | None = None) -> None:
        """Train random weights, at the method's sparsity or another one."""
        sparsity = self.sparsity if sparsity is None else sparsity
        net.keep(topk(random_scores(net), self.allocation(net, 1 - sparsity)))
        if self.scale_fan_in:
            scale_by_fan_in(net)


@torch.no_grad()
def scale_by_fan_in(net: Net) -> None:
    """Multiply the trained weights of each neuron by sqrt(number of inputs / number of trained
    inputs).

    Initial weights are drawn for all inputs. Scaled, they give the neuron's output the variance of
    the dense neuron. Evci, Ioannou, Keskin, Dauphin, AAAI 2022 (arXiv:2010.03533), draw them for
    the number of trained inputs instead. UserError in a basis, where theta holds coefficients."""
    if net.bases:
        raise UserError(
            "method.scale_fan_in=true scales weights, and with a basis the trained numbers are "
            "coefficients. Choose method.scale_fan_in=false or basis=none"
        )
    for w in net.weights.values():
        if w.param.dim() > 1:  # biases have no fan-in
            inputs = w.trained().view(len(w.param), -1)
            # a neuron without trained inputs has nothing to scale
            scale = (inputs.shape[1] / inputs.sum(1, keepdim=True).clamp_min(1)).sqrt()
            w.psi.mul_(w.gather(scale.expand(inputs.shape).reshape(-1)).to(w.psi))
