"""Structured pruning: which channels are removed, and the methods."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from structured import IMAGES, ZOO, Residual
from torch import Tensor, nn
from toy import RECIPE, Blobs, set_up

from dimred.channels.selection import Channels
from dimred.channels.smaller import without_channels
from dimred.errors import UserError
from dimred.methods.structured_pruning import ChannelAtInit, L1Filters, NetworkSlimming
from dimred.net import Net
from dimred.runs.counts import removed, uncovered
from dimred.scores import magnitude, random_scores
from dimred.training.loop import Train
from dimred.training.observers import Observer


# -- which channels go ---------------------------------------------------------------------------
def chain() -> Channels:
    """2 - 4 - 3 - 1, without biases: channels 0-3 and 4-6; 8, 12 and 3 weights."""
    return Channels(
        Net(
            nn.Sequential(
                nn.Linear(2, 4, bias=False),
                nn.Linear(4, 3, bias=False),
                nn.Linear(3, 1, bias=False),
            )
        ),
        torch.zeros(1, 2),
    )


def kept_by(
    channels: Channels, scores: list[float], density: float, of: Any = "weights"
) -> list[int]:
    return (
        channels.best(torch.tensor(scores, dtype=torch.float64), density, of)
        .nonzero()
        .view(-1)
        .tolist()
    )


def test_the_best_channels_that_fit_are_kept() -> None:
    channels = chain()
    scores = [7.0, 6, 5, 4, 3, 2, 1]
    assert kept_by(channels, scores, 1.0) == [0, 1, 2, 3, 4, 5, 6]
    # 0-3 and 4 are 8 + 4 + 1 = 13 weights of 23, 0-2 and 4 are 6 + 3 + 1 = 10; with 5 it is 8 + 8 +
    # 2 = 18
    assert kept_by(channels, scores, 13 / 23) == [0, 1, 2, 3, 4]
    assert kept_by(channels, scores, 12 / 23) == [0, 1, 2, 4]
    assert kept_by(channels, scores, 17 / 23) == [0, 1, 2, 3, 4]
    assert kept_by(channels, scores, 18 / 23) == [0, 1, 2, 3, 4, 5]
    assert kept_by(channels, scores, 4 / 7, "channels") == [0, 1, 2, 4]


def test_no_layer_loses_its_last_channel() -> None:
    assert kept_by(chain(), [7, 6, 5, 4, 1, 3, 2], 4 / 23) == [0, 5]
    message = (
        r"sparsity=0.87 leaves 3 of 23 weights, but one channel of each .* are 4. "
        r"Choose at most sparsity=0.826"
    )
    with pytest.raises(UserError, match=message):
        kept_by(chain(), [7, 6, 5, 4, 1, 3, 2], 0.13)


def test_equal_scores_are_kept_in_the_order_of_their_layers() -> None:
    assert kept_by(chain(), [1.0] * 7, 5 / 7, "channels") == [0, 1, 2, 3, 4]


def test_within_layers_every_layer_loses_the_same_fraction() -> None:
    ranks = chain().within_layers(torch.tensor([5.0, 8, 7, 6, 1, 3, 2]).double())
    assert torch.allclose(ranks, torch.tensor([1, 7, 5, 3, 4 / 3, 20 / 3, 4]).double() / 8)
    for model in (ZOO["vgg11"], ZOO["mobilenet"]):
        net = Net(model())
        channels = Channels(net, IMAGES)
        kept = channels.best(
            channels.within_layers(channels.sums(random_scores(net))), 0.5, "channels"
        )
        for numbers in channels.filters.values():
            assert abs(kept[numbers].double().mean() - 0.5) <= 1 / len(numbers)


def test_a_channel_scores_the_sum_over_all_filters_that_make_it() -> None:
    net = Net(Residual())
    w = {name: value.detach().abs() for name, value in net.model.named_parameters()}
    sums = Channels(net, IMAGES).sums(magnitude(net))
    assert torch.allclose(
        sums[:4].float(), w["stem.weight"].sum((1, 2, 3)) + w["b.weight"].sum((1, 2, 3))
    )
    assert torch.allclose(sums[4:6].float(), w["a.weight"].sum((1, 2, 3)))
    assert torch.allclose(sums[6:].float(), w["fc.weight"].sum(1))


def test_removed_channels_do_not_come_back() -> None:
    net = Net(Residual())
    channels = Channels(net, IMAGES)
    kept = channels.everything()
    kept[[0, 5]] = False
    net.keep(channels.supports(kept))
    assert (channels.sums(random_scores(net)) == -torch.inf).nonzero().view(-1).tolist() == [0, 5]
    assert (channels.within_layers(channels.sums(random_scores(net))) == -torch.inf).sum() == 2


# -- methods -------------------------------------------------------------------------------------
METHODS = [
    L1Filters(sparsity=0.5, count="weights", prune_at=0.5, skip=()),
    NetworkSlimming(sparsity=0.5, count="weights", prune_at=0.5, penalty=1e-4),
    *(
        ChannelAtInit(
            sparsity=0.5,
            count="weights",
            score=score,
            scope=across,
            rounds=rounds,
            examples=32,
            ablation="none",
        )
        for score, across, rounds in (  # type: ignore
            ("random", "network", 1),
            ("magnitude", "layer", 1),
            ("snip", "network", 3),
            ("grasp", "network", 1),
            ("synflow", "network", 10),
            ("crop", "network", 1),
            ("lamp", "layer", 2),
        )
    ),
]


@pytest.mark.parametrize(
    "method", METHODS, ids=lambda m: f"{type(m).__name__}-{getattr(m, 'score', '')}"
)
def test_whole_channels_are_removed_and_the_rest_fits_the_budget(method: Any) -> None:
    net, train = set_up()
    method.run(net, train)
    assert 0.2 * net.total < net.dim <= 0.5 * net.total
    images = train.sample(4)[0]
    small = without_channels(net, images)
    assert sum(p.numel() for p in small.parameters() if p.dim() > 1) == net.dim
    assert sum(p.numel() for p in small.parameters()) == net.dim + sum(
        uncovered(net).values()
    ) - removed(net)
    net.train(False)
    with torch.no_grad():
        assert torch.allclose(small.eval()(images), net(images), atol=1e-5)


@pytest.mark.parametrize(
    "method",
    [
        L1Filters(sparsity=0.0, count="weights", prune_at=0.5, skip=()),
        NetworkSlimming(sparsity=0.0, count="weights", prune_at=0.5, penalty=0.0),
        ChannelAtInit(
            sparsity=0.0,
            count="weights",
            score="snip",
            scope="network",
            rounds=1,
            examples=32,
            ablation="none",
        ),
    ],
    ids=lambda m: type(m).__name__,
)
def test_nothing_to_remove_is_dense_training(method: Any) -> None:
    net, train = set_up()
    method.run(net, train)
    dense, train = set_up()
    train()
    assert all(
        torch.equal(dense.state_dict()[name], value) for name, value in net.state_dict().items()
    )


def test_channels_are_ablated_as_weights_are() -> None:
    nets = {}
    for ablation in ("none", "shuffle", "reinit", "invert"):
        nets[ablation], _ = set_up()
        train = Train(nets[ablation], Blobs(), dataclasses.replace(RECIPE, lr=1e-30))
        ChannelAtInit(
            sparsity=0.5,
            count="channels",
            score="snip",
            scope="network",
            rounds=2,
            examples=32,
            ablation=ablation,
        ).run(nets[ablation], train)  # type: ignore
    none, shuffle, reinit, _ = nets.values()
    for name in ("0.weight", "4.weight"):
        kept = {
            key: net.weights[name].trained().view(net.weights[name].param.shape).flatten(1).any(1)
            for key, net in nets.items()
        }
        assert kept["shuffle"].sum() == kept["none"].sum() and torch.equal(
            kept["reinit"], kept["none"]
        )
        assert not torch.equal(kept["invert"], kept["none"])
    assert any(
        not torch.equal(shuffle.weights[name].trained(), w.trained())
        for name, w in none.weights.items()
    )
    for name, w in reinit.weights.items():
        assert not torch.equal(w.psi, none.weights[name].psi)
        assert torch.isin(w.psi, none.initial()[name]).all()


def test_l1_filters_prunes_the_smallest_filters_of_each_layer_when_it_is_time() -> None:
    net, train = set_up()
    L1Filters(sparsity=0.5, count="channels", prune_at=0.25, skip=()).run(net, train)
    dense, train = set_up()
    train(0, 10)
    for name, filters in (("0.weight", 2), ("4.weight", 6)):
        norms = dense.dense_weights()[name].flatten(1).abs().sum(1)
        alive = net.weights[name].trained().view(net.weights[name].param.shape).flatten(1).any(1)
        assert alive.sum() == filters and norms[alive].min() > norms[~alive].max()


def test_l1_filters_skips_what_it_is_told_to() -> None:
    net, train = set_up()
    L1Filters(sparsity=0.3, count="weights", prune_at=0.5, skip=(r"^0\.",)).run(net, train)
    assert net.weights["0.weight"].support is None and net.weights["4.weight"].dim < 768 * 0.7


def test_the_penalty_of_slimming_shrinks_every_scale_by_the_same_amount() -> None:
    """Where the loss is flat, plain gradient descent takes lr * s from each |gamma|; constant
    gammas stay constant."""
    net, train = set_up(momentum=0.0, lr=0.1, weight_decay=0.0, steps=2)
    for p in net.parameters().values():
        p.requires_grad_(p is net.uncovered["1.weight"])
    with torch.no_grad():
        net.weights["6.weight"].psi.zero_()  # nothing reaches the logits
        net.uncovered["1.weight"].copy_(torch.tensor([0.5, -0.5, 0.5, -0.5]))
    NetworkSlimming(sparsity=0.0, count="weights", prune_at=1.0, penalty=0.25).run(net, train)
    assert torch.allclose(net.uncovered["1.weight"], torch.tensor([0.45, -0.45, 0.45, -0.45]))


def test_slimming_keeps_the_largest_scales_of_all_layers_and_the_first_of_equal_ones() -> None:
    net = Net(
        nn.Sequential(
            nn.Conv2d(3, 3, 1),
            nn.BatchNorm2d(3),
            nn.Conv2d(3, 3, 1),
            nn.BatchNorm2d(3),
            nn.Conv2d(3, 2, 1),
        )
    )
    channels = Channels(net, IMAGES)
    assert kept_by(channels, channels.mean_scale().tolist(), 4 / 6, "channels") == [
        0,
        1,
        2,
        3,
    ]  # all are 1
    with torch.no_grad():
        net.uncovered["1.weight"].copy_(torch.tensor([0.1, -0.2, 0.3]))
        net.uncovered["3.weight"].copy_(torch.tensor([-0.6, 0.4, 0.5]))
    assert kept_by(channels, channels.mean_scale().tolist(), 4 / 6, "channels") == [2, 3, 4, 5]
    assert kept_by(channels, channels.mean_scale().tolist(), 5 / 6, "channels") == [1, 2, 3, 4, 5]


def test_the_scale_of_an_added_channel_is_the_mean_and_what_has_none_stays() -> None:
    net = Net(ZOO["residual"]())
    channels = Channels(net, IMAGES)
    with torch.no_grad():
        net.uncovered["norm.weight"].copy_(torch.tensor([4.0, -3.0, 2.0, 1.0]))
    assert channels.mean_scale().tolist() == [4, 3, 2, 1, *[torch.inf] * 7]
    assert kept_by(channels, channels.mean_scale().tolist(), 9 / 11, "channels") == [
        0,
        1,
        *range(4, 11),
    ]
    net = Net(ZOO["resnet20"]())
    assert (Channels(net, IMAGES).mean_scale() == 1).all()


def test_slimming_without_norms_is_an_error() -> None:
    _, train = set_up()
    plain = Net(nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Linear(4, 2)))
    with pytest.raises(
        UserError, match=r"network_slimming needs norms .* such as model=vgg11 or model=resnet20"
    ):
        NetworkSlimming(sparsity=0.5, count="weights", prune_at=0.5, penalty=1e-4).run(plain, train)


def test_removed_channels_stay_removed_while_training_goes_on() -> None:
    net, train = set_up()
    method = L1Filters(sparsity=0.5, count="weights", prune_at=0.25, skip=())
    zeros = list[dict[str, Tensor]]()

    class Watch(Observer):
        def before_update(self, train: Train, step: int) -> None:
            zeros.append({name: theta == 0 for name, theta in net.dense_weights().items()})

    train.observers.append(Watch())
    method.run(net, train)
    assert len(zeros) == 40 and all(
        torch.equal(zeros[11][name], zeros[-1][name]) for name in net.weights
    )
    assert sum(int(z.sum()) for z in zeros[-1].values()) == net.total - net.dim
