"""Pruning at initialisation: what holds for every method, and the examples that are scored."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from at_init import (
    CLASSES,
    make,
    rounds_of,
    same,
    supports_of,
)
from PIL import Image
from torch import Tensor, nn
from toy import RECIPE, set_up

from dimred.data import Digits, imagefolder
from dimred.errors import UserError
from dimred.methods.pruning_at_init.cops import COPS
from dimred.methods.pruning_at_init.iterative import FORCE, IterSNIP
from dimred.methods.pruning_at_init.phew import PHEW
from dimred.methods.pruning_at_init.single_shot import (
    SNIP,
    CroP,
    FreezeNet,
    GraSP,
    ProsPr,
)
from dimred.methods.pruning_at_init.transfer import NTT
from dimred.net import Net
from dimred.scores import (
    snip,
)
from dimred.select.allocations import ERK, Global
from dimred.select.topk import topk
from dimred.training.loop import Train


# -- every method --------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(("base", "allocation"), [("zero", Global()), ("init", ERK(power=1.0))])
def test_counts_are_exact_and_untrained_weights_equal_their_base(
    kind: type, base: str, allocation: object
) -> None:
    net, train = set_up(steps=3)
    make(kind, 0.8, allocation, base).run(net, train)
    assert net.dim == round(0.2 * net.total)
    for name, w in net.weights.items():
        left = w.dense()[~w.trained()]
        initial = net.initial()[name].view(-1)[~w.trained()]
        assert torch.equal(left, initial if base == "init" else torch.zeros_like(left))
        assert (
            not torch.equal(w.dense()[w.trained()], net.initial()[name].view(-1)[w.trained()])
            or w.dim == 0
        )


@pytest.mark.parametrize(
    ("kind", "passes"),
    [(ProsPr, [4]), (COPS, [3]), (GraSP, [1]), (CroP, [3, 3]), (PHEW, [20])],
)
def test_passes_of_long_scores_are_reported(
    kind: type, passes: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for limit in ("PATIENCE", "SILENCE"):
        monkeypatch.setattr(f"dimred.training.progress.{limit}", 0.0)
    with caplog.at_level("INFO", logger="dimred.progress"):
        make(kind).choose(*set_up())
    messages = [message.partition(": ")[0] for message in caplog.messages]
    assert messages == [f"scoring {k + 1} of {n}" for n in passes for k in range(n)]


@pytest.mark.parametrize("kind", CLASSES)
def test_shuffling_keeps_the_number_of_each_layer_and_moves_the_mask(kind: type) -> None:
    plain, shuffled = supports_of(make(kind)), supports_of(make(kind, ablation="shuffle"))
    assert [int(m.sum()) for m in plain.values()] == [int(m.sum()) for m in shuffled.values()]
    full = [name for name, m in plain.items() if 0 < m.sum() < len(m)]
    assert full and all(
        not torch.equal(plain[name], shuffled[name]) for name in full if len(plain[name]) > 100
    )


@pytest.mark.parametrize("base", ["zero", "init"])
@pytest.mark.parametrize("kind", CLASSES)
def test_reinitialising_keeps_the_mask_and_draws_from_the_same_values(
    kind: type, base: str
) -> None:
    plain, train = set_up()
    make(kind, base=base).prune(plain, train)
    net, train = set_up()
    make(kind, base=base, ablation="reinit").prune(net, train)
    assert same(plain.supports, net.supports)  # type: ignore[arg-type]
    for name, w in net.weights.items():
        initial = net.initial()[name].view(-1)
        assert torch.isin(w.psi, initial).all()
        assert w.dim < 10 or not torch.equal(w.psi, w.gather(initial))
        assert base == "zero" or torch.equal(w.dense()[~w.trained()], initial[~w.trained()])


def test_inverting_trains_the_weights_with_the_lowest_scores() -> None:
    net, train = set_up()
    scores = snip(net, train.sample(32))
    worst = topk({name: -score for name, score in scores.items()}, 166)
    SNIP(sparsity=0.8, allocation=Global(), base="zero", ablation="invert", examples=32).prune(
        net, train
    )
    assert same(net.supports, worst)  # type: ignore[arg-type]


def test_inverted_rounds_never_bring_back_pruned_weights() -> None:
    net, train = set_up()
    method = IterSNIP(
        sparsity=0.8,
        allocation=Global(),
        base="zero",
        ablation="invert",
        rounds=4,
        schedule="exponential",
        examples=16,
    )
    seen = rounds_of(method, net, train)
    for earlier, later in itertools.pairwise(seen):
        assert all((earlier[name] | ~later[name]).all() for name in later)


# -- examples ------------------------------------------------------------------------------------
def digits(**changes: object) -> Digits:
    plain = {
        "val_fraction": 0.0,
        "resize": None,
        "mean": [0.0],
        "std": [1.0],
        "crop_padding": 0,
        "flip": True,
    }
    return Digits(**{**plain, **changes})  # type: ignore[arg-type]


def pixels(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.contiguous()}


def test_augmented_examples_to_score_with_are_mirrored_and_cropped_as_in_training() -> None:
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    data = digits()
    known = pixels(next(data.eval_batches("train", 10_000))[0])
    train = Train(net, data, RECIPE, seed=3)
    plain, (augmented, labels) = train.sample(200)[0], train.sample(200, augment=True)
    assert pixels(plain) <= known
    kept = [pixels(image[None]) <= known for image in augmented]
    mirrored = [pixels(image.flip(-1)[None]) <= known for image in augmented]
    assert all(a or b for a, b in zip(kept, mirrored, strict=True)) and 60 < sum(kept) < 140
    again = train.sample(200, augment=True)
    assert torch.equal(again[0], augmented) and torch.equal(again[1], labels)
    assert not torch.equal(Train(net, data, RECIPE, seed=4).sample(200, augment=True)[0], augmented)
    # not those of the first epoch
    assert not pixels(augmented) <= pixels(next(data.train_batches(200, 3, 0))[0])
    cropped = Train(net, digits(crop_padding=2, flip=False), RECIPE, seed=3).sample(
        50, augment=True
    )[0]
    assert cropped.shape == (50, 1, 8, 8) and not pixels(cropped) <= known


def test_augmented_examples_of_a_streamed_folder_are_random_parts_of_the_images(
    tmp_path: Path,
) -> None:
    noise = np.random.default_rng(0)
    for split, label, i in itertools.product(("train", "test"), "ab", range(4)):
        (tmp_path / split / label).mkdir(parents=True, exist_ok=True)
        image = noise.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / split / label / f"{i}.png")
    data = imagefolder(
        name="noise",
        path=str(tmp_path),
        in_memory=False,
        val_fraction=0.0,
        resize=16,
        workers=0,
        mean=[0.5] * 3,
        std=[0.5] * 3,
        crop_padding=0,
        flip=False,
        channels=3,
        skip_corrupted=False,
    )
    train = Train(Net(nn.Sequential(nn.Flatten(), nn.Linear(768, 2))), data, RECIPE, seed=3)
    (plain, _), (augmented, labels) = train.sample(8), train.sample(8, augment=True)
    assert plain.shape == augmented.shape == (8, 3, 16, 16)
    assert sorted(labels.tolist()) == [0] * 4 + [1] * 4
    assert not pixels(plain) & pixels(augmented)
    assert torch.equal(train.sample(8, augment=True)[0], augmented)


@pytest.mark.parametrize("kind", [SNIP, FreezeNet, GraSP, CroP, ProsPr, COPS, IterSNIP, FORCE])
def test_methods_score_on_augmented_examples_if_asked(kind: type) -> None:
    seen: list[bool] = []
    net, train = set_up()
    sample = train.sample
    # type: ignore
    train.sample = lambda n, augment=False: (seen.append(augment), sample(n, augment))[1]
    for augment in (False, True):
        make(kind, augment=augment).choose(net, train)
    assert seen == [False, True]


@pytest.mark.parametrize("kind", [SNIP, CroP, ProsPr, COPS, IterSNIP, FORCE])
def test_more_examples_than_there_are_are_refused(kind: type) -> None:
    for examples in (64, 65):  # blobs have 64
        net, train = set_up()
        method = make(kind, examples=examples)
        if examples == 64:
            method.choose(net, train)
        else:
            with pytest.raises(UserError, match=r"method.examples=65 .* Choose method.examples=64"):
                method.choose(net, train)


def test_no_examples_and_batches_larger_than_the_data_are_errors_that_name_the_key() -> None:
    net, train = set_up()
    with pytest.raises(
        UserError, match=r"method.examples=0 is not allowed. It must be a whole number"
    ):
        SNIP(sparsity=0.8, allocation=Global(), base="zero", ablation="none", examples=0).choose(
            net, train
        )
    with pytest.raises(
        UserError, match=r"method.transfer_batch_size=65 .* 64 or less: blobs has 64 training"
    ):
        NTT(
            sparsity=0.8,
            allocation=Global(),
            base="zero",
            ablation="none",
            transfer_steps=2,
            transfer_lr=1e-3,
            transfer_batch_size=65,
            kernel_weight=1e-3,
            weight_decay=0.0,
            update_every=1,
        ).choose(net, train)
