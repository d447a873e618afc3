"""N:M sparsity: n of every m consecutive weights are nonzero, a pattern that hardware can use."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dimred.errors import UserError, require
from dimred.fields import Checked, Count, NotNegative
from dimred.net import Net
from dimred.net.transforms import Transform, straight_through
from dimred.training.loop import Train

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NM(Checked):
    """N:M sparsity: use the n largest of every m consecutive weights; all weights are updated, and
    pruned weights decay.

        E(theta) = theta * (among the n largest of its group);
        dL/dtheta <- dL/dE + penalty * (theta not used)

    A group is m consecutive inputs of a neuron in NHWC order (channels are contiguous). Layers with
    a number of inputs that is not a multiple of m stay dense. Memory and time are those of dense
    training; the final network is sparse.

    Trains: all weights, n of m in use; stores: which n of every m, 2 bits for each in use at 2:4;
    needs: dense weights and gradients in every step.

    Zhou et al., ICLR 2021 (arXiv:2102.04010): SR-STE.
    """

    n: Count = 2
    m: Count = 4
    penalty: NotNegative = 0.0002  # lambda_W, the decay of pruned weights

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.n <= self.m, "method.n, method.m", (self.n, self.m), "0 < n <= m")

    def run(self, net: Net, train: Train) -> None:
        patterns = {
            name: LargestOf(self.n, self.m, self.penalty)
            for name, w in net.weights.items()
            if w.param.dim() > 1 and math.prod(w.param.shape[1:]) % self.m == 0
        }
        if not patterns:
            raise UserError(
                "method nm needs a layer with a number of inputs that is a multiple of "
                f"method.m={self.m}, and {type(net.model).__name__} has none. Choose another "
                "method.m, or a model such as model=resnet20 for method.m=4"
            )
        if dense := [name for name in net.weights if name not in patterns]:
            log.warning(
                "dense, because the number of inputs is not a multiple of %d: %s",
                self.m,
                ", ".join(dense),
            )
        net.add_transforms(patterns)
        train()
        thetas = net.dense_weights()
        used = {
            name: each.kept(thetas[name]).reshape(-1).nonzero().view(-1)
            for name, each in patterns.items()
        }
        net.keep(used, merge=True)


class LargestOf(Transform):
    """The n largest of every m weights by a straight-through estimator, and the SR-STE penalty on
    the others."""

    def __init__(self, n: int, m: int, decay: float) -> None:
        super().__init__()
        self.n, self.m, self.decay = n, m, decay

    def kept(self, theta: Tensor) -> Tensor:
        """True at the n largest of every group; among equals the first are kept."""
        size = theta.detach().abs().movedim(1, -1)
        places = size.reshape(-1, self.m).T.contiguous()  # row i: place i of every group
        # how many weights of its group come before each one: larger ones, and equal ones at earlier
        # places. m comparisons of rows take the place of a sort of every group
        ahead = torch.zeros_like(places, dtype=torch.int16)
        for i in range(self.m):
            ahead[:i] += places[i] > places[:i]
            ahead[i + 1 :] += places[i] >= places[i + 1 :]
        return (ahead < self.n).T.reshape(size.shape).movedim(-1, 1)

    def forward(self, theta: Tensor) -> Tensor:
        return straight_through(theta * self.kept(theta), theta)

    def penalty(self, theta: Tensor) -> Tensor:
        # its gradient is penalty * theta at unused weights, the SR-STE term
        return self.decay / 2 * (theta * ~self.kept(theta)).square().sum()
