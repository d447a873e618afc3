"""Data sets: batches, splits, augmentation, and the YAML files."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import (
    STREAM,
    YAMLS,
    config_of,
    digits,
    same,
)
from torch import Tensor

from dimred.data import (
    Data,
    imagefolder,
)
from dimred.data.base import held_out
from dimred.data.memory import crop, mirror
from dimred.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(params=["memory", "stream"])
def data(request: pytest.FixtureRequest, pictures: Path) -> Data:
    return (
        digits()
        if request.param == "memory"
        else imagefolder(path=str(pictures), **{**STREAM, "workers": 0})
    )


# Batches
def test_batches_are_a_function_of_seed_and_epoch(data: Data) -> None:
    assert same(data.train_batches(4, seed=1, epoch=2), data.train_batches(4, seed=1, epoch=2))
    first, other_seed, other_epoch = (
        next(data.train_batches(4, *key))[0] for key in ((1, 2), (3, 2), (1, 3))
    )
    assert not torch.equal(first, other_seed)
    assert not torch.equal(first, other_epoch)


def test_starting_late_gives_the_batches_of_starting_early(data: Data) -> None:
    batches = list(data.train_batches(4, seed=0, epoch=0))
    assert len(batches) == data.steps_per_epoch(4) == data.sizes["train"] // 4
    assert same(iter(batches[2:]), data.train_batches(4, seed=0, epoch=0, start=2))


def test_the_global_random_state_is_neither_read_nor_changed(data: Data) -> None:
    def all_draws() -> list[Tensor]:
        return [
            next(data.train_batches(4, 0, 0))[0],
            next(data.eval_batches("test"))[0],
            data.sample(4, seed=0)[0],
        ]

    torch.manual_seed(0)
    state, first = torch.get_rng_state(), all_draws()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(first, all_draws(), strict=True))


def test_batches_are_float_images_and_long_labels(data: Data) -> None:
    for images, labels in (
        next(data.train_batches(4, 0, 0)),
        next(data.eval_batches("val", 2)),
        data.sample(4, 0),
    ):
        assert (
            images.dtype == torch.float32
            and images.shape[1:] == data.shape
            and images.is_contiguous()
        )
        assert labels.dtype == torch.int64 and labels.shape == images.shape[:1]


def test_evaluation_sees_every_example_once_and_in_order(data: Data) -> None:
    for split, size in data.sizes.items():
        whole, parts = next(data.eval_batches(split, 10_000)), list(data.eval_batches(split, 4))
        assert len(whole[1]) == size and torch.equal(
            torch.cat([images for images, _ in parts]), whole[0]
        )


def test_an_epoch_sees_every_training_example_once() -> None:
    data = digits(crop_padding=0, flip=False)
    seen = torch.cat([images for images, _ in data.train_batches(1, seed=0, epoch=0)])
    expected = torch.cat([images for images, _ in data.eval_batches("train")])
    assert sorted(seen.flatten(1).tolist()) == sorted(expected.flatten(1).tolist())


def test_a_sample_is_of_different_plain_training_examples(data: Data) -> None:
    assert same(iter([data.sample(4, seed=1)]), iter([data.sample(4, seed=1)]))
    assert not torch.equal(data.sample(4, seed=1)[0], data.sample(4, seed=2)[0])
    everyone = torch.cat([images for images, _ in data.eval_batches("train")])
    sample = data.sample(data.sizes["train"], seed=0)[0]
    assert sorted(sample.flatten(1).tolist()) == sorted(everyone.flatten(1).tolist())


@pytest.mark.parametrize("size", [0, 10_000])
def test_impossible_sizes_are_user_errors(data: Data, size: int) -> None:
    with pytest.raises(UserError, match=f"batch size of {size}"):
        next(data.train_batches(size, 0, 0))
    with pytest.raises(UserError, match=f"sample of {size}"):
        data.sample(size, 0)


def test_the_validation_split_is_disjoint_balanced_and_the_same_for_everyone() -> None:
    labels = np.repeat([3, 1, 2], [100, 7, 50])
    keep, held = held_out(labels, 0.1)
    assert sorted([*keep, *held]) == list(range(157)) and len(held) == 16
    assert np.abs(np.bincount(labels[held]) - [0, 0.7, 5, 10]).max() <= 1
    assert np.array_equal(held_out(labels, 0.1)[1], held)


def test_without_a_validation_fraction_there_is_no_validation_split() -> None:
    data = digits(val_fraction=0.0)
    assert data.sizes == {"train": 1438, "val": 0, "test": 359} and not list(
        data.eval_batches("val")
    )


def test_options_out_of_range_are_user_errors() -> None:
    wrong = {"val_fraction": 1.0, "resize": 0, "crop_padding": -1, "mean": [0.1, 0.2], "std": [0.0]}
    for option, value in wrong.items():
        with pytest.raises(UserError, match=f"dataset.{option}="):
            digits(**{option: value})


# Augmentation
def test_crop_and_mirror_of_a_known_image() -> None:
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    padded = torch.nn.functional.pad(image, [1] * 4).expand(2, 2, 5, 5).contiguous()
    corners = torch.tensor(
        [[0, 2], [0, 1]]
    )  # the upper left corner; and two rows down, one column right
    left, right = crop(padded, torch.tensor([0, 1]), corners, (3, 3))[:, 1].tolist()
    assert left == [[0, 0, 0], [0, 1, 2], [0, 4, 5]]
    assert right == [[4, 5, 6], [7, 8, 9], [0, 0, 0]]
    kept, mirrored = mirror(image.expand(2, 1, 3, 3), torch.tensor([False, True]))[:, 0].tolist()
    assert kept == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert mirrored == [[3, 2, 1], [6, 5, 4], [9, 8, 7]]


def test_normalisation_is_of_pixels_between_zero_and_one() -> None:
    whole = torch.cat([images for images, _ in digits(mean=None, std=None).eval_batches("train")])
    assert whole.mean().abs() < 1e-5 and (whole.std(correction=0) - 1).abs() < 1e-5
    assert (
        digits(mean=[0.25], std=[0.5])
        .normalise(torch.tensor([[[[255]]]], dtype=torch.uint8))
        .item()
        == 1.5
    )


def test_resizing_makes_squares() -> None:
    data = digits(resize=12)
    assert data.shape == (1, 12, 12) and next(data.train_batches(4, 0, 0))[0].shape == (
        4,
        1,
        12,
        12,
    )


@pytest.mark.gpu
def test_all_devices_see_the_same_batches(data: Data) -> None:
    batches = list(data.to(torch.device("cuda")).train_batches(4, seed=0, epoch=0))
    assert all(t.is_cuda for batch in batches for t in batch)
    assert same(
        data.train_batches(4, seed=0, epoch=0),
        ((images.cpu(), labels.cpu()) for images, labels in batches),
    )


# YAMLs
@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_a_yaml_lists_every_parameter_of_its_target_which_has_no_default(path: Path) -> None:
    config = config_of(path)
    module, name = config.pop("_target_").rsplit(".", 1)
    target: Callable[..., Data] = getattr(importlib.import_module(module), name)
    parameters = inspect.signature(target).parameters
    assert list(config) and set(config) == set(parameters)
    assert all(parameter.default is parameter.empty for parameter in parameters.values())
