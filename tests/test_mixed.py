"""MixUp and CutMix: mixed images with labels in the same proportion."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from several import on_ranks
from small_data import digits
from torch import Tensor, nn
from toy import RECIPE, Blobs

from dimred.conformance.observe import step_as_on_a_gpu
from dimred.data.base import Batches
from dimred.data.mixed import Mixed
from dimred.data.share import Share
from dimred.errors import UserError
from dimred.net import Net
from dimred.training.evaluate import RunningLoss
from dimred.training.group import Group
from dimred.training.loop import Train
from dimred.training.ranks import ALONE, Ranks

BOTH = {"mixup": 0.8, "cutmix": 1.0}


class Plain(Blobs):
    """Image i of a batch has the value i everywhere, and the label i."""

    classes, shape = 16, (3, 6, 8)

    def train_batches(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Batches:
        for _ in range(start, self.steps_per_epoch(batch_size)):
            numbers = torch.arange(batch_size)
            yield numbers.float().view(-1, 1, 1, 1).expand(-1, 3, 6, 8), numbers


def batches(batch_size: int = 16, epochs: int = 10, **alphas: float) -> list[tuple[Tensor, Tensor]]:
    source = Mixed(Plain(), **{"mixup": 0.0, "cutmix": 0.0, **alphas})
    return [
        batch for epoch in range(epochs) for batch in source.train_batches(batch_size, 3, epoch)
    ]


@pytest.mark.parametrize("alphas", [{"mixup": 0.4}, {"cutmix": 1.0}, BOTH])
def test_labels_are_mixed_like_the_pixels(alphas: dict[str, float]) -> None:
    for images, labels in batches(**alphas):
        assert labels.shape == (16, 16) and (labels >= 0).all()
        torch.testing.assert_close(labels.sum(1), torch.ones(16))
        # the mean pixel of an image is the mean of the two numbers, in their proportions
        expected = labels @ torch.arange(16.0)
        torch.testing.assert_close(images.mean((1, 2, 3)), expected, rtol=1e-4, atol=1e-4)
        assert (labels > 0).sum(1).max() <= 2


def test_mixup_blends_whole_images() -> None:
    found = batches(mixup=0.4)
    assert all((images == images[:, :1, :1, :1]).all() for images, _ in found)
    blended = [images for images, _ in found if (images % 1 > 0.01).any()]
    assert len(blended) > 20


def test_cutmix_replaces_one_rectangle_of_the_shape_of_the_image() -> None:
    sizes = set()
    for images, _ in batches(cutmix=1.0):
        others = (images != torch.arange(16.0).view(-1, 1, 1, 1)).any(0)
        assert (others == others[:1]).all()
        rows, columns = others[0].any(1), others[0].any(0)
        assert torch.equal(others[0], rows[:, None] & columns[None])
        sizes.add((int(rows.sum()), int(columns.sum())))
    assert len(sizes) > 8 and all(h <= 6 and w <= 8 for h, w in sizes)


def test_proportions_are_those_of_a_beta_distribution() -> None:
    """Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2a + 1))."""
    for alpha in (0.2, 1.0):
        own = []
        for _, labels in batches(epochs=100, mixup=alpha):
            own.append(labels.diagonal().min())  # where the partner is another image
        found = torch.stack(own)
        assert abs(float(found.mean()) - 0.5) < 0.05
        assert abs(float(found.var()) - 1 / (4 * (2 * alpha + 1))) < 0.02


def test_each_of_both_mixes_half_of_the_batches() -> None:
    blends = [bool((images % 1 > 0).any()) for images, _ in batches(epochs=100, **BOTH)]
    assert 0.4 < sum(blends) / len(blends) < 0.6


def test_mixing_depends_on_seed_epoch_and_step_alone() -> None:
    source = Mixed(digits(), **BOTH)
    whole = list(source.train_batches(100, 3, 1))
    later = list(source.train_batches(100, 3, 1, start=4))
    assert all(
        torch.equal(a, b)
        for one, two in zip(whole[4:], later, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    shares = [list(source.train_shares(Share(rank, 3), 100, 3, 1)) for rank in range(3)]
    for i, (images, labels) in enumerate(whole):
        assert torch.equal(images, torch.cat([share[i][0] for share in shares]))
        assert torch.equal(labels, torch.cat([share[i][1] for share in shares]))
    other = next(source.train_batches(100, 3, 2))
    assert not torch.equal(whole[0][1].sort().values, other[1].sort().values)


def test_the_step_is_that_of_plain_pytorch_with_soft_labels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    net = Net(model, seed=3)
    weight = model[1].weight.detach().clone().requires_grad_()
    bias = model[1].bias.detach().clone().requires_grad_()
    recipe = dataclasses.replace(RECIPE, batch_size=50, label_smoothing=0.1, **BOTH)
    images, labels = next(Mixed(digits(), **BOTH).train_batches(50, 3, 0))
    logits = F.linear(images.flatten(1), weight, bias)
    # by hand: cross-entropy with the smoothed probabilities
    smooth = 0.9 * labels + 0.1 / 10
    loss = -(smooth * logits.log_softmax(1)).sum(1).mean()
    loss.backward()
    train = Train(net, digits(), recipe, seed=3)
    for _ in train.steps(0, 1):
        torch.testing.assert_close(net.weights["1.weight"].psi.grad, weight.grad.view(-1))
        mean, accuracy = train.running_loss.read(1)
        assert mean == pytest.approx(loss.item())
        right = (logits.argmax(1) == labels.argmax(1)).float().mean()
        assert accuracy == pytest.approx(float(right))


def test_a_mixed_example_is_right_if_its_larger_part_is_recognised() -> None:
    running = RunningLoss(dataclasses.replace(RECIPE, batch_size=2), 1, torch.device("cpu"))
    labels = torch.tensor([[0.3, 0.7], [0.6, 0.4]])
    running.add(torch.tensor(1.0), torch.tensor([[0.0, 1.0], [0.0, 1.0]]), labels)
    running.count()
    assert running.read(1) == (1.0, 0.5)


def test_evaluation_and_samples_are_not_mixed() -> None:
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), seed=3)
    train = Train(net, digits(), dataclasses.replace(RECIPE, **BOTH), seed=3)
    for images, labels in (train.sample(20), train.sample(20, augment=True)):
        assert images.shape == (20, 1, 8, 8) and labels.dtype == torch.int64
    for (a, b), (c, d) in zip(
        train.skipped.images.eval_batches("val"), digits().eval_batches("val"), strict=True
    ):
        assert torch.equal(a, c) and torch.equal(b, d)


def trained(emulated: bool = False, ranks: Ranks = ALONE) -> Train:
    torch.manual_seed(0)
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), seed=3)
    recipe = dataclasses.replace(RECIPE, batch_size=32, steps=20, accumulate=2, **BOTH)
    train = Train(net, digits(), recipe, seed=3, ranks=ranks)
    if emulated:
        step_as_on_a_gpu(train, captured=True)
    train()
    return train


def test_captured_steps_take_mixed_batches() -> None:
    nets = [trained(emulated) for emulated in (True, False)]
    assert nets[0].stepper.captured > 0
    for name, value in nets[0].net.state_dict().items():
        torch.testing.assert_close(value, nets[1].net.state_dict()[name])


def on_a_rank() -> Any:
    alone, together = trained().net.state_dict(), trained(ranks=Group()).net.state_dict()
    return {name: float((value - alone[name]).abs().max()) for name, value in together.items()}


def test_ranks_train_on_the_same_mixed_batches(tmp_path: Path) -> None:
    for found in on_ranks({"found": on_a_rank}, 2, tmp_path):
        assert all(difference < 1e-5 for difference in found["found"].values())


@pytest.mark.parametrize("key", BOTH)
def test_only_images_can_be_mixed(key: str) -> None:
    data = Blobs()
    data.shape = (16,)  # type: ignore[assignment]
    with pytest.raises(UserError, match=rf"recipe.{key}=0.5 is not allowed.*no images"):
        Train(Net(nn.Linear(16, 2)), data, dataclasses.replace(RECIPE, **{key: 0.5}))


def test_stored_activations_and_mixed_images_exclude_each_other() -> None:
    with pytest.raises(UserError, match=r"recipe.cache_frozen_mb=10 is not allowed.*mixup"):
        dataclasses.replace(RECIPE, mixup=0.5, cache_frozen_mb=10)
