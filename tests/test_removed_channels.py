"""Removed channels leave the computation of steps (recipe.skip_removed_channels)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from structured import IMAGES, ZOO
from torch import nn
from toy import RECIPE, Blobs, Crash, Fragile

from dimred.channels.remaining import Remaining, remaining
from dimred.channels.selection import Channels
from dimred.channels.smaller import without_channels
from dimred.conformance.observe import step_as_on_a_gpu
from dimred.methods.lottery_tickets.early_bird import EarlyBird
from dimred.methods.structured_pruning import ChannelAtInit, NetworkSlimming
from dimred.net import Net
from dimred.net.transforms import Masked
from dimred.scores import magnitude
from dimred.select.allocations import Global
from dimred.select.topk import topk
from dimred.storage.folder import RunFolder
from dimred.training.loop import Train
from dimred.training.tape import Recorder


def pruned(name: str) -> tuple[Net, Channels]:
    """A model of the zoo that has lost every third channel."""
    torch.manual_seed(0)
    net = Net(ZOO[name]())
    channels = Channels(net, IMAGES)
    kept = channels.everything()
    for members in channels.coupled_groups():
        kept[members[1::3]] = False
    channels.keep(kept)
    return net, channels


def conv_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 2),
    )


def trained(
    method: Any, skip: bool, folder: RunFolder | None = None, last: int = -1, **recipe: Any
) -> Train:
    net = Net(conv_net(), seed=3)
    settings = dataclasses.replace(RECIPE, skip_removed_channels=skip, **recipe)
    observers = [Fragile(last)] if last >= 0 else []
    train = Train(net, Blobs(), settings, seed=3, folder=folder, observers=observers)
    method.run(net, train)
    return train


METHODS = {
    "channel_at_init": ChannelAtInit(sparsity=0.5, examples=64),
    "slimming": NetworkSlimming(sparsity=0.5, prune_at=0.25),
    "early_bird": EarlyBird(sparsity=0.5, masks=2, search_until=0.4),
}


# -- values --------------------
@pytest.mark.parametrize("name", ZOO)
def test_the_remaining_channels_train_as_the_smaller_plain_model_does(name: str) -> None:
    net, channels = pruned(name)
    part = remaining(net, channels)
    assert part is not None
    small = without_channels(net, IMAGES)
    for module in (*net.model.modules(), *small.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images, labels = torch.randn(6, 3, 16, 16), torch.tensor([0, 1] * 3)
    ours = torch.optim.SGD(net.parameters().values(), lr=0.01)
    plain = torch.optim.SGD(small.parameters(), lr=0.01)
    for _ in range(2):
        net.zero_grad()
        plain.zero_grad()
        with net.weights_in_place(part.thetas(net)) as model:
            F.cross_entropy(part.of(model)(images), labels).backward()
        F.cross_entropy(small(images), labels).backward()
        ours.step()
        plain.step()
    ours_now, plain_now = without_channels(net, IMAGES).state_dict(), small.state_dict()
    for key, value in plain_now.items():
        assert torch.allclose(ours_now[key], value, rtol=1e-4, atol=1e-5), key


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_run_ends_as_if_removed_channels_were_computed(method: Any) -> None:
    skipping, computing = (trained(method, skip) for skip in (True, False))
    assert skipping.skipped.part and computing.skipped.part is None
    for name, w in skipping.net.weights.items():
        other = computing.net.weights[name]
        assert torch.equal(w.trained(), other.trained())
        assert torch.allclose(w.dense(), other.dense(), atol=1e-5)
    assert skipping.costs.steps == computing.costs.steps
    for split in ("val", "test"):
        assert skipping.evaluate(split) == pytest.approx(computing.evaluate(split), abs=1e-4)


@pytest.mark.parametrize("last", [4, 25])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_resumed_run_has_the_bits_of_one_that_was_not_interrupted(
    tmp_path: Path, method: Any, last: int
) -> None:
    with pytest.raises(Crash), RunFolder(tmp_path) as folder:
        trained(method, True, folder, last)
    with RunFolder(tmp_path) as folder:
        resumed = trained(method, True, folder)
    states = resumed.net.state_dict(), trained(method, True).net.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_steps_of_the_remaining_channels_can_be_captured() -> None:
    states = []
    for captured in (False, True):
        net = Net(conv_net(), seed=3)
        train = Train(net, Blobs(), dataclasses.replace(RECIPE, skip_removed_channels=True))
        step_as_on_a_gpu(train, captured)
        METHODS["channel_at_init"].run(net, train)
        assert train.skipped.part and train.stepper.captured >= 30 * captured
        states.append(net.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


# -- what is computed --------------------
def test_steps_compute_convolutions_of_the_remaining_channels_alone() -> None:
    net = Net(conv_net())
    channels = Channels(net, torch.zeros(1, 1, 4, 4))
    kept = channels.everything()
    kept[:4] = False  # of the first layer
    kept[6] = False
    train = Train(net, Blobs(), dataclasses.replace(RECIPE, skip_removed_channels=True))

    def shapes() -> list[str]:
        with Recorder() as recorder:
            train.stepper.gradients()
        lines = [line for line in recorder.tape.lines if line[0] == "aten.convolution.default"]
        return [line[2].partition(" ")[2].partition(") ")[0] + ")" for line in lines]

    for t in train.steps(0, 3):
        if t == 0:
            assert shapes() == ["(6, 1, 3, 3)", "(8, 6, 3, 3)"]
            channels.keep(kept)
        else:
            assert shapes() == ["(2, 1, 3, 3)", "(7, 2, 3, 3)"]
    # a method that asks for the gradients of all weights gets them
    for _ in train.steps(3, 4, dense_grad=lambda t: True):
        assert shapes() == ["(6, 1, 3, 3)", "(8, 6, 3, 3)"]


def test_statistics_of_removed_channels_stay_and_those_of_the_others_follow() -> None:
    net = Net(conv_net())
    channels = Channels(net, torch.zeros(1, 1, 4, 4))
    kept = channels.everything()
    kept[:4] = False
    channels.keep(kept)
    part = remaining(net, channels)
    assert isinstance(part, Remaining)
    images = torch.randn(8, 1, 4, 4)
    with net.weights_in_place(part.thetas(net)) as model:
        part.of(model)(images)
    mean = net.model[0](images)[:, 4:].mean((0, 2, 3)).detach()
    assert torch.allclose(net.model[1].running_mean[4:], 0.1 * mean, atol=1e-6)
    assert not net.model[1].running_mean[:4].any()
    assert net.model[1].running_mean.shape == (6,) and int(net.model[1].num_batches_tracked) == 1


# -- what is not structured --------------------
def test_all_of_the_model_is_computed_unless_whole_channels_alone_are_pruned() -> None:
    net = Net(conv_net())
    channels = Channels(net, torch.zeros(1, 1, 4, 4))
    assert remaining(net, channels) is None  # nothing is removed
    kept = channels.everything()
    kept[:4] = False
    channels.keep(kept)
    assert remaining(net, channels)
    net.add_transforms({"0.weight": Masked(net.weights["0.weight"].param)})
    assert remaining(net, channels) is None
    net.remove_transforms()
    net.freeze({"3.weight": net.weights["3.weight"].support[:1]})
    assert remaining(net, channels) is None  # a weight of a remaining channel is held
    net = Net(conv_net())
    net.keep(topk(magnitude(net), Global()(net, 0.3)))
    assert remaining(net, Channels(net, torch.zeros(1, 1, 4, 4))) is None


class Counting(nn.Sequential):
    """Its logits depend on the number of its channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self[0](x)
        return self[1](hidden.relu()).mean((2, 3)) * hidden.shape[1]


def test_a_model_that_depends_on_the_number_of_channels_is_computed_whole() -> None:
    net = Net(Counting(nn.Conv2d(1, 6, 3), nn.Conv2d(6, 2, 1)))
    train = Train(net, Blobs(), dataclasses.replace(RECIPE, skip_removed_channels=True))
    channels = Channels(net, torch.zeros(1, 1, 4, 4))
    kept = channels.everything()
    kept[2:] = False
    channels.keep(kept)
    train(0, 1)
    assert remaining(net, channels) and train.skipped.part is None


def test_a_depthwise_convolution_with_a_computed_weight_keeps_its_channels() -> None:
    depthwise = nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 3, groups=6))
    model = nn.Sequential(
        nn.Conv2d(1, 6, 1), depthwise, nn.Conv2d(6, 4, 1), nn.Conv2d(4, 2, 2), nn.Flatten()
    )
    net = Net(model)
    images = torch.randn(2, 1, 4, 4)
    channels = Channels(net, images)
    kept = channels.everything()
    kept[-1] = False
    channels.keep(kept)
    part = remaining(net, channels)
    assert part is not None
    with net.weights_in_place(part.thetas(net)) as plain:
        found = part.of(plain)(images)
    assert torch.allclose(found, net(images), atol=1e-6)
