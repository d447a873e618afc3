"""Coupled channels, and the smaller model without the removed ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from structured import IMAGES, ZOO, Residual, table
from torch import Tensor, nn

from dimred.channels.selection import Channels
from dimred.channels.smaller import without_channels
from dimred.errors import UserError
from dimred.net import Net
from dimred.scores import random_scores


# -- what a channel is ---------------------------------------------------------------------------
def test_channels_of_a_residual_net_worked_out_by_hand() -> None:
    channels = Channels(Net(Residual()), IMAGES)
    stream, inner, hidden = (
        [0, 1, 2, 3],
        [4, 5],
        [6, 7, 8, 9, 10],
    )  # out's two and the images' three stay
    assert channels.count == 11
    assert table(channels.filters) == {
        "stem.weight": stream,
        "a.weight": inner,
        "b.weight": stream,
        "fc.weight": hidden,
    }
    flattened = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]  # four pixels of each
    assert table(channels.columns) == {
        "a.weight": stream,
        "b.weight": inner,
        "fc.weight": flattened,
        "out.weight": hidden,
    }
    assert table(channels.scales) == {"norm.weight": stream}
    assert set(channels.rows) == {
        *channels.filters,
        "stem.bias",
        "a.bias",
        "b.bias",
        "fc.bias",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
    }


def test_a_removed_channel_loses_its_filters_and_the_columns_of_the_next_layer() -> None:
    net = Net(Residual())
    channels = Channels(net, IMAGES)
    kept = channels.everything()
    kept[[1, 4]] = False
    net.keep(channels.supports(kept))
    left = {name: w.trained().view(w.param.shape) for name, w in net.weights.items()}
    assert not left["stem.weight"][1].any() and left["stem.weight"][[0, 2, 3]].all()
    assert (
        not left["a.weight"][0].any()
        and not left["a.weight"][:, 1].any()
        and left["a.weight"][1, [0, 2, 3]].all()
    )
    assert not left["b.weight"][1].any() and not left["b.weight"][:, 0].any()
    assert not left["fc.weight"][:, 4:8].any() and left["fc.weight"].sum() == 5 * 12
    assert left["out.weight"].all()
    # stem 3x27, a 1x27 of 2x36, b 3x1 of 4x2, fc 5x12 of 5x16, out 2x5
    assert net.dim == channels.cost(kept, "weights") == 81 + 27 + 3 + 60 + 10
    assert channels.cost(kept, "channels") == 9


def of(*layers: nn.Module, **how: Any) -> Channels:
    return Channels(Net(nn.Sequential(*layers)), IMAGES, **how)


def test_a_depthwise_filter_belongs_to_its_input_channel() -> None:
    channels = of(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 4, 3, groups=2), nn.Conv2d(4, 2, 1))
    assert table(channels.filters) == {"0.weight": [0, 1], "1.weight": [0, 0, 1, 1]}
    assert table(channels.columns) == {"2.weight": [0, 0, 1, 1]}


def test_groups_keep_equal_sizes() -> None:
    channels = of(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 3, groups=2), nn.Conv2d(6, 2, 1))
    assert table(channels.filters) == {"0.weight": [0, 1, 0, 1], "1.weight": [2, 3, 4, 2, 3, 4]}
    assert table(channels.columns) == {"1.weight": [0, 1], "2.weight": [2, 3, 4, 2, 3, 4]}


def test_skipped_layers_keep_their_filters_but_not_their_columns() -> None:
    def layers() -> list[nn.Module]:
        return [nn.Conv2d(3, 2, 1), nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 1)]

    channels = of(*layers(), skip=[r"^1\."])
    assert table(channels.filters) == {"0.weight": [0, 1]} and table(channels.columns) == {
        "1.weight": [0, 1]
    }
    with pytest.raises(UserError, match=r"method.skip: 'conv9' matches no layer with filters"):
        of(*layers(), skip=["conv9"])


class Odd(nn.Module):
    """Whoever reads the result of something unknown, is computed from something or is not covered
    stays."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.d, self.e = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x)).softmax(1)  # of all channels of b
        x = F.conv2d(x, self.c.weight - self.c.weight.mean())  # c is standardised
        return self.e(self.d(x))


def test_a_removed_channel_takes_its_bias_and_norm_along_where_they_are_covered() -> None:
    net = Net(
        nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)), include=["."]
    )
    channels = Channels(net, IMAGES)
    with torch.no_grad():
        net.weights["1.weight"].psi.copy_(torch.tensor([-3.0, 2.0]))
    assert channels.mean_scale().tolist() == [3, 2]
    kept = torch.tensor([False, True])
    assert channels.cost(kept, "weights") == 3 + 1 + 1 + 1 + 2 + 2
    channels.keep(kept)
    trained = {name: w.trained().tolist() for name, w in net.weights.items()}
    assert trained == {
        "0.weight": [False] * 3 + [True] * 3,
        "0.bias": [False, True],
        "1.weight": [False, True],
        "1.bias": [False, True],
        "2.weight": [False, True] * 2,
        "2.bias": [True, True],
    }


def test_channels_of_unknown_operations_stay() -> None:
    channels = Channels(Net(Odd()), IMAGES)
    assert table(channels.filters) == {"a.weight": [0, 1, 2, 3], "d.weight": [4, 5, 6, 7]}
    channels = Channels(Net(Odd(), exclude=["^e"]), IMAGES)
    assert table(channels.filters) == {"a.weight": [0, 1, 2, 3]}


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 2, 1)),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 1)),
        nn.Sequential(nn.Flatten(2), nn.Linear(256, 4), nn.LayerNorm(4), nn.Linear(4, 2)),
    ],
)
def test_a_model_without_removable_channels_is_refused_with_the_reason(model: nn.Module) -> None:
    with pytest.raises(
        UserError, match=r"no channel that can be removed: it needs .* such as model=vgg11"
    ):
        Channels(Net(model), IMAGES)


def test_looking_for_channels_changes_nothing() -> None:
    net = Net(Residual().train())
    before, random = copy.deepcopy(net.model.state_dict()), torch.get_rng_state()
    Channels(net, IMAGES)
    assert all(torch.equal(before[name], value) for name, value in net.model.state_dict().items())
    assert net.model.training and torch.equal(random, torch.get_rng_state())


# -- the smaller model ---------------------------------------------------------------------------
def evaluated(make: Callable[[], nn.Module]) -> Net:
    """The model in float64, with norms that shift and scale whatever comes."""
    torch.manual_seed(0)
    model = make().double().eval()
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                for value, low in (
                    (m.weight, -2),
                    (m.bias, -2),
                    (m.running_mean, -1),
                    (m.running_var, 0.5),
                ):
                    assert value is not None
                    value.uniform_(low, 2)
    return Net(model)


@pytest.mark.parametrize("name", ZOO)
def test_a_compacted_model_has_the_logits_of_the_masked_one(name: str) -> None:
    net, images = evaluated(ZOO[name]), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    channels = Channels(net, images)
    kept = channels.best(channels.sums(random_scores(net)), 0.5, "weights")
    net.keep(channels.supports(kept))
    small = without_channels(net, images)
    with torch.no_grad():
        assert torch.allclose(
            small(images), net(images), rtol=0, atol=1e-9 * net(images).abs().max().item()
        )
    assert 0.4 < net.dim / net.total <= 0.5
    cut = {name: p for name, p in small.named_parameters() if name in net.weights}
    assert sum(p.numel() for p in cut.values()) == net.dim == channels.cost(kept, "weights")
    assert type(small) is type(net.model) and all(p.requires_grad for p in small.parameters())
    small.train()(images).sum().backward()  # a model like any other


def test_the_attributes_of_compacted_layers_match_their_weights() -> None:
    net = evaluated(ZOO["mobilenet"])
    channels = Channels(net, IMAGES)
    kept = channels.everything()
    kept[0] = False
    net.keep(channels.supports(kept))
    small: Any = without_channels(net, IMAGES.double())
    assert (small.conv.out_channels, small.bn.num_features) == (7, 7)
    assert (small.block1.depthwise.in_channels, small.block1.depthwise.groups) == (7, 7)
    assert (
        small.block1.pointwise.in_channels == 7 and small.fc.in_features == net.model.fc.in_features
    )


def test_unused_channels_are_removed_even_if_weights_were_pruned_one_by_one() -> None:
    net = Net(
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    )
    readers = torch.ones(2, 3)
    readers[:, 1] = 0  # nobody reads hidden unit 1 of the second layer,
    second = torch.ones(3, 4)
    second[[0, 2], 3] = 0  # and it alone reads unit 3 of the first
    net.keep(
        {
            "2.weight": second.view(-1).nonzero().view(-1),
            "4.weight": readers.view(-1).nonzero().view(-1),
        }
    )
    small: Any = without_channels(net, torch.zeros(1, 3))
    assert [tuple(small[i].weight.shape) for i in (0, 2, 4)] == [(3, 3), (2, 3), (2, 2)]
    x = torch.randn(5, 3)
    with torch.no_grad():
        assert torch.allclose(small(x), net(x), atol=1e-6)


def test_tied_weights_stay_tied() -> None:
    layers = [nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)]
    layers[1].weight = layers[0].weight
    net = Net(nn.Sequential(nn.Linear(3, 4), *layers))
    channels = Channels(net, torch.zeros(1, 3))
    assert (
        channels.count == 4
    )  # what the tied layer reads, what it makes and what it makes of that are one
    kept = channels.everything()
    kept[2] = False
    net.keep(channels.supports(kept))
    small: Any = without_channels(net, torch.zeros(1, 3))
    assert small[1].weight is small[2].weight and small[1].weight.shape == (3, 3)
