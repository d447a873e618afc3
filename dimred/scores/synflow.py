"""Synaptic flow: scores without data."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from dimred.net import Net
from dimred.net.coordinates import Supports
from dimred.scores.basic import gradients, masked


def synflow(
    net: Net, shape: Sequence[int], supports: Supports, power: int = 1
) -> dict[str, Tensor]:
    """|theta|^power * dR/d|theta| with R = 1^T f_|theta|(1), theta zero outside the supports;
    `shape` is that of an image.

    Tanaka, Kunin, Yamins, Ganguli, NeurIPS 2020 (arXiv:2006.05467), eq. 2. All parameters and
    buffers are made positive, including biases and norms, as in the official code. Norms use their
    running statistics, with which they are the identity before training. Computed in float64,
    because products over many layers overflow float32. For power=2 see methods.SynFlow."""
    flow = copy.deepcopy(net).to(dtype=torch.float64)
    thetas = masked({name: theta.abs() for name, theta in flow.dense_weights().items()}, supports)
    with torch.no_grad():
        values = list(flow.model.state_dict().values())
        for basis in dict.fromkeys(flow.bases.values()):
            values += basis.state_dict().values()
        for value in values:
            if value.is_floating_point():
                value.abs_()
    # with the statistics of the batch, BatchNorm would undo every scale and R would be constant
    flow.train(False)
    ones = torch.ones(1, *shape, dtype=torch.float64, device=next(iter(thetas.values())).device)
    grads = gradients(flow, (ones, ones), lambda out, _: out.sum(), at=thetas)
    return {name: theta**power * grads[name] for name, theta in thetas.items()}
