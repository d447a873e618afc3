"""Settings of dynamic sparse training, and small nets to try it on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dimred.methods.dynamic_sparse_training.deep_r import DeepR
from dimred.methods.dynamic_sparse_training.dsr import DSR
from dimred.methods.dynamic_sparse_training.granet import GraNet
from dimred.methods.dynamic_sparse_training.itop import ITOP
from dimred.methods.dynamic_sparse_training.mest import MEST
from dimred.methods.dynamic_sparse_training.rigl import RigL
from dimred.methods.dynamic_sparse_training.set import SET
from dimred.methods.dynamic_sparse_training.snfs import SNFS
from dimred.net import Net
from dimred.select.allocations import Uniform

TOTAL, LEFT = 828, 166  # covered weights of the toy, and what sparsity 0.8 leaves


IN_LAYERS = [
    SET(sparsity=0.8, update_every=8),
    RigL(sparsity=0.8, update_every=5),
    ITOP(sparsity=0.8, update_every=5),
    ITOP(sparsity=0.8, update_every=5, grow="gradient"),
    MEST(
        sparsity=0.8,
        update_every=8,
        drop_fractions=(0.4, 0.2),
        stage_ends=(0.5, 0.7),
        gradient_weight=0.1,
    ),
    GraNet(sparsity=0.8, initial_sparsity=0.8, prune_until=0.5, update_every=5),
    DeepR(sparsity=0.8, allocation=Uniform(), l1=1e-3, noise=1e-2),
]


ACROSS = [
    SNFS(sparsity=0.8, update_every=8),
    DSR(
        sparsity=0.8,
        allocation=Uniform(),
        update_every=3,
        double_period_at=(0.4, 0.7),
        initial_threshold=1e-2,
    ),
]


GROWING = [
    MEST(
        sparsity=0.8,
        update_every=8,
        drop_fractions=(0.5, 0.25),
        stage_ends=(0.5, 0.7),
        soft_memory_bound=True,
        gradient_weight=0.1,
    ),
    GraNet(sparsity=0.8, prune_until=0.5, update_every=5),
]


def label(method: object) -> str:
    return "-".join(
        [
            type(method).__name__,
            *(str(v) for v in vars(method).values() if isinstance(v, (str, bool))),
        ]
    )


def dims(net: Net) -> dict[str, int]:
    return {name: w.dim for name, w in net.weights.items()}


def full(net: Net) -> dict[str, Tensor]:
    return {name: theta.clone() for name, theta in net.dense_weights().items()}


def same(one: Net, other: Net) -> bool:
    return all(
        torch.equal(theta, other.dense_weights()[name])
        for name, theta in one.dense_weights().items()
    )


def line(*values: float) -> Net:
    """A net of one layer with these weights."""
    layer = nn.Linear(len(values), 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([values]))
    return Net(layer)


def buffer(net: Net, name: str) -> Tensor:
    return net.optimizer_state.of(net.weights[name].psi)["momentum_buffer"]
