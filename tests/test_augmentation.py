"""RandAugment, TrivialAugment and random erasing, as functions of seed, epoch and position."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_data import STREAM, digits, forking
from torch import Tensor, nn
from torchvision.transforms import RandomErasing, v2
from toy import RECIPE, Blobs

from dimred.data import NPZ, imagefolder
from dimred.data.augmentation import Augmentation, boxes, erase
from dimred.data.base import Data
from dimred.data.share import Share
from dimred.errors import UserError
from dimred.net import Net
from dimred.training.loop import Train
from dimred.training.tape import Recorder

RANDAUGMENT = Augmentation("randaugment", 0.5)
POLICIES = [RANDAUGMENT, Augmentation("trivialaugment"), Augmentation("none", 0.7)]

pytestmark = pytest.mark.usefixtures("own_cache")


def pixels(n: int = 12, size: int = 16) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, 3, size, size), dtype=torch.uint8, generator=draws)


# -- transforms --------------------
@pytest.mark.parametrize(
    ("name", "transform"),
    [("randaugment", v2.RandAugment()), ("trivialaugment", v2.TrivialAugmentWide())],
)
def test_an_image_is_transformed_by_torchvision_with_its_seed(name: Any, transform: Any) -> None:
    images, seeds = pixels(), list(range(100, 112))
    found = Augmentation(name).transformed(images, seeds)
    for image, seed, each in zip(images, seeds, found, strict=True):
        torch.manual_seed(seed)
        assert torch.equal(each, transform(image))
    assert sum(not torch.equal(a, b) for a, b in zip(found, images, strict=True)) > 5
    part = Augmentation(name).transformed(images[5:8], seeds[5:8])
    assert torch.equal(part, found[5:8])


def test_torchs_generator_has_its_state_again() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    RANDAUGMENT.transformed(pixels(), range(12))
    assert torch.equal(torch.rand(3), expected)


# -- erasing --------------------
def test_erased_rectangles_are_distributed_as_torchvision_draws_them() -> None:
    """Means over 4000 images of the height, the width, the area and the corner."""
    ours = boxes(np.random.default_rng(0), 4000, 1.0, 32, 24)
    torch.manual_seed(0)
    image = torch.zeros(1, 32, 24)
    drawn = [RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0]) for _ in range(4000)]
    top, left, high, wide = np.array([each[:4] for each in drawn]).T
    theirs = np.stack([top, left, top + high, left + wide])

    def means(sides: np.ndarray) -> list[float]:
        height, width = sides[2] - sides[0], sides[3] - sides[1]
        return [float(each.mean()) for each in (height, width, height * width, sides[0], sides[1])]

    assert means(ours) == pytest.approx(means(theirs), rel=0.04)
    assert (ours >= 0).all() and ours[2].max() <= 32 and ours[3].max() <= 24


def test_images_are_erased_with_the_given_probability() -> None:
    found = boxes(np.random.default_rng(1), 2000, 0.25, 16, 16)
    assert abs(float((found[2] > found[0]).mean()) - 0.25) < 0.03


def test_an_erased_rectangle_is_zero_and_nothing_else_changes() -> None:
    images = torch.rand(2, 3, 5, 6) + 1
    found = erase(images, torch.tensor([[1, 0], [2, 0], [3, 0], [6, 0]]))
    expected = images.clone()
    expected[0, :, 1:3, 2:6] = 0
    assert torch.equal(found, expected)


# -- data --------------------
def in_memory(more: Augmentation) -> Data:
    return digits().with_augmentation(more)


@pytest.fixture(scope="module")
def streams(pictures: Path) -> Any:
    def stream(more: Augmentation, **changes: Any) -> Data:
        return imagefolder(
            **{**STREAM, "path": str(pictures), "workers": 0, **changes}
        ).with_augmentation(more)

    return stream


def batches(data: Data, size: int, epoch: int = 1, **how: int) -> list[tuple[Tensor, Tensor]]:
    return list(data.train_batches(size, 3, epoch, **how))


def equal(left: list[tuple[Tensor, ...]], right: list[tuple[Tensor, ...]]) -> bool:
    assert len(left) == len(right) > 0
    flat = [list(chain.from_iterable(side)) for side in (left, right)]
    return all(torch.equal(a, b) for a, b in zip(*flat, strict=True))


def require_pure(data: Data, plain: Data, size: int) -> None:
    """Batches depend on seed, epoch and position alone, and labels stay."""
    whole = batches(data, size)
    assert equal(whole, batches(data, size))
    assert equal(whole[1:], batches(data, size, start=1))
    shares = [list(data.train_shares(Share(rank, 3), size, 3, 1)) for rank in range(3)]
    for batch, *parts in zip(whole, *shares, strict=True):
        images, labels = zip(*parts, strict=True)
        assert equal([batch], [(torch.cat(images), torch.cat(labels))])
    unchanged = batches(plain, size)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(whole, unchanged, strict=True))
    assert not equal([(images,) for images, _ in whole], [(images,) for images, _ in unchanged])
    assert not equal(whole, batches(data, size, epoch=2))
    for split in ("train", "test"):
        assert equal(list(data.eval_batches(split)), list(plain.eval_batches(split)))
    assert equal([data.sample(5, 1)], [plain.sample(5, 1)])


@pytest.mark.parametrize("more", POLICIES)
def test_batches_in_memory_are_pure_functions(more: Augmentation) -> None:
    require_pure(in_memory(more), digits(), 400)


@forking
@pytest.mark.parametrize("more", POLICIES)
def test_streamed_batches_are_pure_functions_for_any_number_of_workers(
    more: Augmentation, streams: Any
) -> None:
    plain = streams(Augmentation())
    size = plain.sizes["train"] // 3
    require_pure(streams(more), plain, size)
    assert equal(batches(streams(more), size), batches(streams(more, workers=2), size))


def test_crops_and_order_stay_as_they_were() -> None:
    """Erasing draws after them: pixels that are not erased are those of the plain data."""
    more = in_memory(Augmentation("none", 0.5))
    for (one, _), (two, _) in zip(batches(more, 400), batches(digits(), 400), strict=True):
        assert ((one == two) | (one == 0)).all() and (one != two).any()


def test_copies_are_augmented_once() -> None:
    data = in_memory(RANDAUGMENT).with_copies(2)
    examples = data.sizes["train"]

    def by_number(epoch: int) -> Tensor:
        images, _ = batches(data, examples, epoch)[0]
        order = data.stored_order(3, epoch) % examples
        return images[order.argsort()]

    assert data.stored_copies == 2
    assert torch.equal(by_number(0), by_number(2))
    assert not torch.equal(by_number(0), by_number(1))
    stored = torch.cat([images for images, _ in data.stored_batches(3)])
    assert torch.equal(stored[:examples], by_number(0))


@pytest.mark.parametrize("more", POLICIES)
def test_fixed_batches_are_the_same(more: Augmentation) -> None:
    data, tapes = in_memory(more), []
    feed = data.feed(400, fixed=True)
    for _, expected in zip(feed.steps(3, 1), batches(data, 400), strict=True):
        with Recorder() as recorder:
            batch = feed.batch()
        assert equal([batch], [expected])
        tapes.append(recorder.tape)
    assert not any(tapes[0].difference(tape) for tape in tapes[1:])


# -- training --------------------
def test_a_recipe_trains_on_augmented_images() -> None:
    recipe = dataclasses.replace(RECIPE, augment="trivialaugment", erasing=0.3, batch_size=100)
    seen: list[Tensor] = []
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), seed=3)
    train = Train(net, digits(), recipe, seed=3)
    net.model.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    train(0, 2)
    data = digits().with_augmentation(Augmentation("trivialaugment", 0.3))
    expected: Iterator[tuple[Tensor, Tensor]] = data.train_batches(100, 3, 0)
    trained = [images for images in seen if len(images) == 100][:2]
    for images, (wanted, _) in zip(trained, expected, strict=False):
        assert torch.equal(images, wanted)


def test_data_that_cannot_be_augmented_is_refused(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, augment="randaugment")
    with pytest.raises(UserError, match="blobs cannot be augmented: Blobs does not implement that"):
        Train(Net(nn.Linear(16, 2)), Blobs(), recipe)
    values = np.random.default_rng(0).normal(size=(20, 1, 8, 8)).astype(np.float32)
    labels = np.arange(20) % 2
    np.savez(tmp_path / "x.npz", x_train=values, y_train=labels, x_test=values, y_test=labels)
    floats = NPZ(
        name="floats", path=str(tmp_path / "x.npz"), val_fraction=0.0, resize=None,
        mean=None, std=None, crop_padding=0, flip=False,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"recipe.augment=randaugment transforms images of 8 bits"):
        Train(Net(nn.Linear(64, 2)), floats, recipe)
