"""PHEW: where its random walks go."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from at_init import (
    Residual,
    lenet5,
    mlp,
)
from torch import Tensor, nn
from toy import model, set_up

from dimred.errors import UserError
from dimred.net import Net
from dimred.scores import (
    generator,
    masked,
    phew,
    synflow,
)
from dimred.scores.phew import path_tables, read_layers, sample_walks
from dimred.select.topk import topk


def on_paths(net: Net, shape: tuple[int, ...]) -> int:
    """How many of the weights in the supports lie on a path from input to output."""
    flow = copy.deepcopy(net)
    with torch.no_grad():
        for w in flow.weights.values():
            w.psi.fill_(1.0)
    for name, p in flow.uncovered.items():
        p.data.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return sum(int((score > 0).sum()) for score in synflow(flow, shape, flow.supports).values())


@pytest.mark.parametrize(
    ("model", "shape", "density"),
    [
        *((lambda: mlp(20, 30, 20, 4), (20,), density) for density in (0.02, 0.1, 0.5, 0.9)),
        *((Residual, (1, 7, 7), density) for density in (0.05, 0.1, 0.5, 0.9)),
        (lenet5, (1, 28, 28), 0.02),
    ],
)
def test_all_weights_visited_by_walks_lie_on_paths(
    model: object, shape: tuple[int, ...], density: float
) -> None:
    net = Net(model())  # type: ignore[operator]
    count = max(10, round(density * net.total))
    net.keep(topk(phew(net, shape, count, generator(net, "phew")), count))
    assert net.dim == count == on_paths(net, shape)


def test_walks_prefer_large_weights_and_have_no_preference_when_all_are_alike() -> None:
    net = Net(mlp(30, 40, 30, 5))
    count = round(0.1 * net.total)

    def mean_size(net: Net) -> float:
        kept = topk(phew(net, (30,), count, generator(net, "phew")), count)
        sizes = {
            name: theta.abs() / theta.abs().mean() for name, theta in net.dense_weights().items()
        }
        return float(sum(masked(sizes, kept)[name].sum() for name in kept)) / count

    assert mean_size(net) > 1.15
    edges = torch.zeros(30, 40)  # of the middle layer: how often they are walked, over many draws
    for seed in range(100):
        alike = Net(mlp(30, 40, 30, 5), seed=seed)
        with torch.no_grad():
            for w in alike.weights.values():
                w.psi.fill_(0.5)
        walked = topk(
            phew(alike, (30,), 100, generator(alike, "phew")), 96
        )  # without those that bring it to 100
        edges.view(-1)[walked["2.weight"]] += 1
    expected = float(edges.mean())
    assert (
        expected > 1 and float(edges.var()) < 1.2 * expected
    )  # as of equal chances; unequal ones spread wider


def test_walks_leave_a_channel_by_any_of_its_pixels_alike() -> None:
    """A channel of four pixels, flattened, whose weights in the next layer are 1, 10, 100 and
    1000."""
    net = Net(
        nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 1, bias=False))
    )
    with torch.no_grad():
        net.weights["2.weight"].psi.copy_(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    layers = read_layers(net, (1, 2, 2))
    tables = {name: path_tables(layer) for name, layer in layers.items()}
    found, walk = sample_walks(layers, tables, range(8000), torch.Generator().manual_seed(0))
    # place 0 is the convolution's
    forwards = torch.bincount(found[walk % 2 == 0], minlength=5)[1:]
    backwards = torch.bincount(found[walk % 2 == 1], minlength=5)[1:]
    assert forwards.sum() == backwards.sum() == 4000
    assert ((forwards - 1000).abs() < 5 * math.sqrt(1000 * 0.75)).all()  # each of them a quarter
    # from the output by size: 1000 and 1 of 1111
    assert backwards[3] > 3400 and backwards[0] < 40


def test_walks_report_models_that_they_cannot_traverse() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x)[:, :4])

    with pytest.raises(
        UserError, match=r"phew walks from channel to channel, and in Split .* model=resnet20"
    ):
        phew(Net(Split()), (4,), 5, torch.Generator())


def test_no_walk_visits_biases_and_norms_that_are_covered() -> None:
    """conv, norm, linear, linear have 828 weights, and 26 biases and scales: they rank last, by
    size."""
    plain, train = set_up()
    net = Net(model(), seed=plain.seed, include=["."])
    scores, among_weights = (
        phew(each, train.data.shape, 200, generator(each, "phew")) for each in (net, plain)
    )
    assert scores.keys() > among_weights.keys()
    chosen = topk(scores, 200)
    for name, support in chosen.items():
        expected = topk(among_weights, 200)[name] if name in among_weights else []
        assert list(support) == list(expected)
    assert scores["1.weight"].tolist() == [1.0] * 4  # the largest of all sizes
    with pytest.raises(
        UserError, match="phew walks through Conv and Linear layers, and none of them is covered"
    ):
        phew(Net(model(), include=["bias"]), train.data.shape, 5, generator(net, "phew"))
