"""Learned subspaces: train a line, curve or simplex of networks instead of one network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from dimred.errors import require
from dimred.fields import Checked, NotNegative, at_least
from dimred.net import Net
from dimred.net.transforms import Transform
from dimred.scores import generator, permuted
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class Subspace(Checked):
    """Learned subspaces: train the corners of a line, curve or simplex of networks, at a random
    point of it in each step, and keep its centre.

        w(a) = sum_i c_i(a) w_i;  loss + beta * mean over pairs of cos^2(w_i, w_j)
        simplex: c uniform on the simplex (points=2: a line);
        curve: c = ((1-a)^2, 2a(1-a), a^2), a ~ U(0, 1)

    All layers share the random point, unless `layerwise` draws one for each. The corners are the
    initial weights and permutations of them, which have the same distribution as new draws. The
    paper takes the cosine of a random pair, and each corner has its own biases and norms. Here all
    points share biases and norms. At the end, an epoch of forward passes estimates the norms'
    statistics at the centre, so accuracies during training are below those of the final network.

    Trains: all weights, as often as there are corners; stores: nothing: the centre is a dense net;
    needs: the dense weights and gradients of all corners.

    Wortsman, Horton, Guestrin, Farhadi, Rastegari, ICML 2021 (arXiv:2102.10472).
    """

    kind: Literal["simplex", "curve"] = "simplex"
    points: Annotated[int, at_least(2)] = 2
    beta: NotNegative = 1.0
    layerwise: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.kind == "simplex" or self.points == 3,
            "method.points",
            self.points,
            "3 for a curve",
        )

    def run(self, net: Net, train: Train) -> None:
        thetas = net.dense_weights()
        nets = [thetas]
        # initial weights of a layer are independent: a permutation is as good as a new draw
        nets += [permuted(thetas, generator(net, f"corner {i}")) for i in range(1, self.points)]
        corners = {name: torch.stack([each[name] for each in nets]) for name in thetas}
        net.freeze(dict.fromkeys(net.weights))
        centre = self.weights(torch.tensor(0.5))
        transforms = {name: Corners(points, centre) for name, points in corners.items()}
        first = next(iter(transforms))
        transforms[first] = Penalised(corners[first], centre, self.beta, transforms)
        net.add_transforms(transforms)
        self.move(net, transforms, 0)
        for t in train.steps():
            # at the pause of step t its point has been used: choose that of step t + 1
            self.move(net, transforms, t + 1)
        net.merge_transforms()
        average_statistics(net, train)

    def move(self, net: Net, transforms: dict[str, Corners], t: int) -> None:
        """Move to the random point of step t."""
        draws, point = generator(net, f"point {t}"), None
        for corners in transforms.values():
            if point is None or self.layerwise:
                point = self.random_point(draws)
            corners.at.copy_(point)

    def random_point(self, draws: torch.Generator) -> Tensor:
        uniform = torch.rand(self.points, generator=draws, dtype=torch.float64)
        if self.kind == "curve":
            return self.weights(uniform[0])
        # exponential draws, divided by their sum, are uniform on the simplex
        exponential = -torch.log1p(-uniform)
        return exponential / exponential.sum()

    def weights(self, a: Tensor) -> Tensor:
        """The coefficients c(a) of the curve; those of the centre for a simplex."""
        return (
            torch.stack(((1 - a) ** 2, 2 * a * (1 - a), a**2))
            if self.kind == "curve"
            else torch.full((self.points,), 1 / self.points)
        )


class Corners(Transform):
    """sum_i c_i w_i, at the point `at` in training mode and at the `centre` in evaluation mode.
    theta itself is not used."""

    counted_as = "weights of corners"
    at: Tensor
    centre: Tensor

    def __init__(self, points: Tensor, centre: Tensor) -> None:
        super().__init__()
        self.points = nn.Parameter(points)
        self.register_buffer("centre", centre.to(points, copy=True))
        self.register_buffer("at", centre.to(points, copy=True))

    def forward(self, theta: Tensor) -> Tensor:
        return torch.tensordot(self.at if self.training else self.centre, self.points, 1)


class Penalised(Corners):
    """The corners of the first weight, with the penalty of all weights: the cosine is that of whole
    networks."""

    def __init__(
        self, points: Tensor, centre: Tensor, beta: float, others: Mapping[str, Corners]
    ) -> None:
        super().__init__(points, centre)
        self.beta = beta
        # a list does not register them as submodules
        self.family = [self, *list(others.values())[1:]]

    def penalty(self, theta: Tensor) -> Tensor:
        # inner products of whole networks are sums over their layers
        gram = torch.stack(
            [corners.points.flatten(1) @ corners.points.flatten(1).T for corners in self.family]
        ).sum(0)
        cos2 = gram.square() / torch.outer(gram.diag(), gram.diag())
        i, j = torch.triu_indices(len(gram), len(gram), 1, device=gram.device)
        return self.beta * cos2[i, j].mean()


def average_statistics(net: Net, train: Train) -> None:
    """Estimate the running statistics of BatchNorm again, as their mean over the batches of one
    epoch: those from training are of other points of the subspace."""
    norms = [
        m
        for m in net.model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean, not a moving average
    with torch.no_grad(), net.weights_in_place():
        for images, _ in (
            train.data.train_batches(train.recipe.batch_size, train.seed, 0) if norms else ()
        ):
            net.model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
