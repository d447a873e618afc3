"""Activations of frozen layers, which are computed once (recipe.cache_frozen_mb)."""

from __future__ import annotations

import dataclasses
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy import RECIPE, Blobs, Crash, Fragile

from dimred.conformance.observe import difference, step_as_on_a_gpu
from dimred.data.folder import imagefolder
from dimred.data.memory import Examples, Memory
from dimred.errors import UserError
from dimred.methods.freezing.layers import LastLayer
from dimred.methods.freezing.progressive import FreezeOut
from dimred.models import resnet, vit
from dimred.net import Net
from dimred.net.longest_prefix import longest_prefix
from dimred.net.prefix import Prefix
from dimred.storage.folder import RunFolder
from dimred.training.loop import Train
from dimred.training.tape import Recorder

SETTINGS = {"init": "kaiming_normal", "pretrained": None}


class Plain(Blobs):
    """The same 64 examples in every epoch, in another order."""

    stored_copies = 1

    def stored_order(self, seed: int, epoch: int) -> Tensor:
        draws = torch.Generator().manual_seed(1000 * seed + epoch)
        return torch.randperm(64, generator=draws)

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.examples(64, 2, len("train"))
        order = self.stored_order(seed, epoch)
        for i in range(start, 64 // batch_size):
            chosen = order[i * batch_size : (i + 1) * batch_size]
            yield images[chosen], labels[chosen]


def conv_net(inplace: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.ReLU(inplace),
        nn.Flatten(),
        nn.Linear(128, 12),
        nn.ReLU(inplace),
        nn.Linear(12, 2),
    )


def trained(method: object, mb: float, folder: RunFolder | None = None, last: int = -1) -> Train:
    net = Net(conv_net(), seed=3)
    recipe = dataclasses.replace(RECIPE, cache_frozen_mb=mb)
    observers = [Fragile(last)] if last >= 0 else []
    train = Train(net, Plain(), recipe, seed=3, folder=folder, observers=observers)
    method.run(net, train)  # type: ignore[attr-defined]
    return train


def end_at(net: Net, images: Tensor) -> str | None:
    found = longest_prefix(net, images, lambda model, x: model(x), lambda prefix: True)
    return found.name if found else None


# -- results --------------------
def test_the_output_layer_trains_as_on_the_features_in_plain_pytorch() -> None:
    net = Net(conv_net())
    net.freeze({"1.running_mean": None})
    model = conv_net()
    model[1].eval()
    data = Plain()
    optimizer = torch.optim.SGD(model[8].parameters(), lr=0.1, momentum=0.9)
    for epoch in range(5):
        for images, labels in data.train_batches(8, 3, epoch):
            optimizer.zero_grad()
            with torch.no_grad():
                features = model[:8](images)
            F.cross_entropy(model[8](features), labels).backward()
            optimizer.step()
    recipe = dataclasses.replace(RECIPE, cache_frozen_mb=1, weight_decay=0.0)
    train = Train(net, data, recipe, seed=3)
    LastLayer().run(net, train)
    assert train.skipped.prefix and train.skipped.prefix.name == "8"
    state, expected = net.state_dict(), model.state_dict()
    for name in state:
        assert torch.allclose(state[name], expected[name], atol=1e-6), name


def test_layers_that_freeze_one_after_another_train_as_without_a_cache() -> None:
    cached, plain = (trained(FreezeOut(t_0=0.5), mb) for mb in (1, 0))
    assert cached.skipped.prefix and cached.skipped.prefix.name == "8"
    assert plain.skipped.prefix is None
    states = cached.net.state_dict(), plain.net.state_dict()
    for name in states[0]:
        assert torch.allclose(states[0][name].double(), states[1][name].double(), atol=1e-5), name


def test_evaluation_from_the_cache_has_the_bits_of_evaluation_without() -> None:
    train = trained(FreezeOut(t_0=0.5), 1)
    assert train.skipped.prefix and train.skipped.frozen.is_current()
    cached = [train.evaluate(split) for split in ("train", "val", "test")]
    train.skipped.frozen = Train(train.net, Plain(), RECIPE).skipped.frozen
    assert [train.evaluate(split) for split in ("train", "val", "test")] == cached


@pytest.mark.parametrize("last", [3, 6, 18, 30])  # layers freeze at steps 5, 12, 23 and 40
def test_a_resumed_run_with_a_cache_has_the_bits_and_the_flops_of_one_that_was_not_interrupted(
    tmp_path: Path, last: int
) -> None:
    with pytest.raises(Crash), RunFolder(tmp_path) as folder:
        trained(FreezeOut(t_0=0.5), 1, folder, last)
    with RunFolder(tmp_path) as folder:
        resumed = trained(FreezeOut(t_0=0.5), 1, folder)
    whole = trained(FreezeOut(t_0=0.5), 1)
    states = resumed.net.state_dict(), whole.net.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert resumed.costs.steps == whole.costs.steps


def test_steps_from_the_cache_can_be_captured() -> None:
    states = []
    for capture in (False, True):
        net = Net(conv_net(), seed=3)
        train = Train(net, Plain(), dataclasses.replace(RECIPE, cache_frozen_mb=1), seed=3)
        step_as_on_a_gpu(train, capture)
        net.freeze({"1.running_mean": None})
        LastLayer().run(net, train)
        states.append(net.state_dict())
        assert not capture or train.stepper.captured > 20
    for name in states[0]:
        assert torch.allclose(states[0][name].double(), states[1][name].double(), atol=1e-6), name


def test_captured_steps_from_the_cache_see_new_supports() -> None:
    states = []
    for captured in (False, True):
        net = Net(conv_net(), seed=3)
        net.freeze({"0.weight": None, "0.bias": None, "1.weight": None, "1.bias": None})
        net.freeze({"1.running_mean": None})
        net.keep({"6.weight": torch.arange(0, 1536, 4)})
        train = Train(net, Plain(), dataclasses.replace(RECIPE, cache_frozen_mb=1), seed=3)
        step_as_on_a_gpu(train, captured)
        for t in train.steps(0, 24):
            if t in (8, 16):
                net.keep({"6.weight": torch.arange(t // 8, 1536, 4)})
        assert train.skipped.prefix and train.stepper.captured >= 15 * captured
        states.append(net.state())
    assert difference(*states) == ""


def test_sparse_products_go_on_after_the_cache() -> None:
    states = []
    for mb, arithmetic in ((0, "dense"), (1, "sparse")):
        net = Net(conv_net(inplace=False), seed=3)
        below = [name for name in net.parameters() if not name.startswith(("6", "8"))]
        net.freeze(dict.fromkeys([*below, "1.running_mean"]))
        net.keep({"6.weight": torch.arange(0, 12 * 128, 5)})
        recipe = dataclasses.replace(RECIPE, cache_frozen_mb=mb, arithmetic=arithmetic)
        train = Train(net, Plain(), recipe, seed=3)
        train()
        assert train.arithmetic.kind == ("mixed" if mb else "dense")
        assert (train.skipped.prefix is not None) == (mb > 0)
        states.append(net.state_dict())
    for name in states[0]:
        assert torch.allclose(states[0][name].double(), states[1][name].double(), atol=1e-5), name


# -- what is computed --------------------
def test_frozen_layers_are_not_executed_in_a_step_and_executed_again_once_they_train() -> None:
    net = Net(conv_net())
    train = Train(net, Plain(), dataclasses.replace(RECIPE, cache_frozen_mb=1))
    below = [name for name in net.parameters() if not name.startswith(("6", "8"))]
    net.freeze(dict.fromkeys([*below, "1.running_mean"]))

    def convolutions() -> int:
        with Recorder() as recorder:
            train.stepper.gradients()
        real = [line for line in recorder.tape.lines if line[0] == "aten.convolution.default"]
        return len(real)

    counts = [convolutions() for _ in train.steps(0, 3)]
    assert counts == [0, 0, 0]
    net.keep({"3.weight": None})
    assert [convolutions() for _ in train.steps(3, 4)] == [1]
    assert train.skipped.prefix and train.skipped.prefix.name == "3"
    # a method that asks for the gradients of all weights gets them
    assert [convolutions() for _ in train.steps(4, 5, dense_grad=lambda t: True)] == [2]
    assert net.grads()["0.weight"].any()


def test_the_flops_of_steps_begin_at_the_cache_which_counts_once() -> None:
    train = trained(LastLayer(), 0)
    # forward: convolutions at 16 positions and Linear layers; backward: the last weight
    features = 16 * (4 * 9 + 8 * 36) + 128 * 12
    assert train.costs.steps == 40 * 8 * 2 * (features + 24 + 24)
    net = Net(conv_net())
    net.freeze({"1.running_mean": None})
    train = Train(net, Plain(), dataclasses.replace(RECIPE, cache_frozen_mb=1))
    LastLayer().run(net, train)
    assert train.costs.steps == 2 * (64 * features + 40 * 8 * (24 + 24))


def test_the_activations_of_more_frozen_layers_are_computed_from_those_of_fewer() -> None:
    net = Net(conv_net())
    net.freeze(dict.fromkeys(["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean"]))
    train = Train(net, Plain(), dataclasses.replace(RECIPE, cache_frozen_mb=1))
    seen = {"0": 0, "3": 0}
    for name in seen:

        def count(_: nn.Module, __: Any, out: Tensor, name: str = name) -> None:
            seen[name] += 0 if out.is_meta else len(out)

        net.model.get_submodule(name).register_forward_hook(count)
    train(0, 1)
    before = seen.copy()
    assert before["0"] >= 96  # all examples of the three splits
    net.freeze({"3.weight": None, "3.bias": None})
    steps = train.costs.steps
    train(1, 2)
    assert train.skipped.prefix and train.skipped.prefix.name == "6"
    # a few for trials, and all examples in the second layer alone
    assert seen["0"] - before["0"] < 96 <= seen["3"] - before["3"]
    # 64 times the second convolution, and a step: the first Linear layer takes one gradient
    step = 8 * (2 * 128 * 12 + 3 * 24)
    assert train.costs.steps - steps == 2 * (64 * 16 * 8 * 36 + step)


def test_changed_weights_of_frozen_layers_are_noticed() -> None:
    net = Net(conv_net())
    net.freeze({"1.running_mean": None})
    train = Train(net, Plain(), dataclasses.replace(RECIPE, cache_frozen_mb=1))
    before = net.state()
    before["psi/0.weight"] = before["psi/0.weight"] * 2
    net.freeze(dict.fromkeys(name for name in net.parameters() if not name.startswith("8")))
    train(0, 2)
    first = train.skipped.frozen.source
    assert train.skipped.frozen.is_current()
    net.restore(before)
    assert not train.skipped.frozen.is_current()
    train(0, 2)
    assert train.skipped.frozen.is_current() and train.skipped.frozen.source is not first


# -- where the prefix ends --------------------
def test_a_prefix_ends_before_what_trains_what_is_random_and_norms_of_batches() -> None:
    images = torch.randn(4, 1, 4, 4)
    net = Net(conv_net())
    assert end_at(net, images) is None  # the first layer trains
    net.freeze(dict.fromkeys(["0.weight", "0.bias", "1.weight", "1.bias"]))
    assert end_at(net, images) == "1"  # statistics are those of the batch
    net.freeze({"1.running_mean": None})
    assert end_at(net, images) == "3"
    net.freeze(dict.fromkeys(net.parameters()))
    assert end_at(net, images) == "8"
    dropout = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Dropout(0.001), nn.Linear(8, 2))
    net = Net(dropout)
    net.freeze({"1.weight": None, "1.bias": None})
    assert end_at(net, images) == "2"


def test_a_prefix_ends_where_all_paths_meet() -> None:
    torch.manual_seed(0)
    sizes = {"depth": 8, "width": 0.25, "shortcut": "conv"}
    net = Net(resnet(shape=(1, 8, 8), classes=2, **sizes, **SETTINGS))
    statistics = [name for name, _ in net.model.named_buffers() if name.endswith("mean")]
    frozen = [name for name in net.parameters() if not name.startswith(("stage3", "fc"))]
    net.freeze(dict.fromkeys([*frozen, *statistics]))
    images = torch.randn(4, 1, 8, 8)
    assert end_at(net, images) == "stage3.0"
    # the shortcut of the block needs its input, after conv1 as before
    net.freeze(dict.fromkeys(["stage3.0.conv1.weight", "stage3.0.bn1.weight", "stage3.0.bn1.bias"]))
    assert end_at(net, images) == "stage3.0"


def test_a_prefix_may_use_parameters_of_the_whole_model() -> None:
    torch.manual_seed(0)
    sizes = {"patch": 2, "dim": 8, "depth": 2, "heads": 2, "mlp": 2}
    net = Net(vit(shape=(1, 4, 4), classes=2, **sizes, **SETTINGS))
    images = torch.randn(4, 1, 4, 4)
    net.freeze(dict.fromkeys(name for name in net.parameters() if not name.startswith("head")))
    assert end_at(net, images) == "head"
    net.keep({"positions": None})  # which are added to the patches
    assert end_at(net, images) is None


def test_the_rest_of_a_model_computes_its_logits_from_the_activations() -> None:
    net = Net(conv_net())
    net.freeze(dict.fromkeys([*net.parameters(), "1.running_mean"]))
    images = torch.randn(6, 1, 4, 4)
    net.train(False)
    with net.weights_in_place() as model:
        found = longest_prefix(net, images[:4], lambda model, x: model(x), lambda prefix: True)
        assert isinstance(found, Prefix)
        features = found.activations(model, images)
        assert torch.equal(features, model[:8](images))
        assert torch.equal(found.of(model)(features), model(images))
    assert "forward" not in vars(net.model[8])


# -- bounds --------------------
def test_of_several_prefixes_the_longest_that_fits_is_cached(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # 96 examples of 128 numbers are 49,152 bytes, of 64 numbers 24,576
    net = Net(conv_net())
    net.freeze(dict.fromkeys(["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean"]))
    with caplog.at_level("INFO"):
        for mb, entry in ((0.02, ""), (0.03, "3")):
            train = Train(net, Plain(), dataclasses.replace(RECIPE, cache_frozen_mb=mb))
            train(0, 1)
            assert (train.skipped.prefix.name if train.skipped.prefix else "") == entry
    assert "take 0.0246 MB, more than recipe.cache_frozen_mb=0.02" in caplog.text


def test_nothing_is_cached_for_augmented_images(caplog: pytest.LogCaptureFixture) -> None:
    net = Net(conv_net())
    net.freeze(dict.fromkeys([*net.parameters(), "1.running_mean"]))
    with caplog.at_level("INFO"):
        train = Train(net, Blobs(), dataclasses.replace(RECIPE, cache_frozen_mb=1))
        train(0, 2)
    assert train.skipped.prefix is None and "blobs augments" in caplog.text


# -- augmented copies --------------------
class Shifted(Memory):
    """64 random images with random crops and mirroring."""

    name = "shifted"

    def __init__(self) -> None:
        super().__init__(
            val_fraction=0.25, resize=None, mean=None, std=None, crop_padding=1, flip=True
        )

    def read(self) -> tuple[Examples, ...]:
        draws = torch.Generator().manual_seed(0)
        images = torch.randint(256, (64, 1, 4, 4), generator=draws, dtype=torch.uint8)
        part = Examples(images, torch.arange(64) % 2)
        return part, part


def test_copies_are_drawn_once_and_used_in_turn() -> None:
    """48 of the 64 images train, in an order of its own in every epoch."""
    data = Shifted().with_copies(2)
    stored = torch.cat([images for images, _ in data.stored_batches(3, 10)])
    assert len(stored) == 96 and not torch.equal(stored[:48], stored[48:])
    plain = torch.cat([images for images, _ in data.eval_batches("train")])
    assert not torch.equal(stored[:48], plain)
    # a copy shows a part of the padded image, mirrored or not
    for image, copy in zip(plain, stored, strict=False):
        padded = F.pad(image, [1, 1, 1, 1], value=data.normalise(torch.zeros(1, 1, 1, 1)).item())
        crops = [padded[:, y : y + 4, x : x + 4] for y in range(3) for x in range(3)]
        assert any(torch.equal(copy, each) or torch.equal(copy, each.flip(2)) for each in crops)
    for epoch in range(4):
        order = data.stored_order(3, epoch)
        assert sorted(order.tolist()) == list(range(48 * (epoch % 2), 48 * (epoch % 2) + 48))
        images = torch.cat([images for images, _ in data.train_batches(16, 3, epoch)])
        assert torch.equal(images, stored[order])
    assert not torch.equal(data.stored_order(3, 0), data.stored_order(3, 2))


def test_streamed_images_have_copies_too(pictures: Path, own_cache: None) -> None:
    data = imagefolder(
        name="pictures", path=str(pictures), val_fraction=0.0, resize=16, channels=3,
        in_memory=False, workers=0, mean=[0.5] * 3, std=[0.5] * 3, crop_padding=0, flip=True,
        skip_corrupted=False,
    ).with_copies(2)  # fmt: skip
    stored = torch.cat([images for images, _ in data.stored_batches(3, 5)])
    assert len(stored) == 36 and not torch.equal(stored[:18], stored[18:])
    for epoch in range(3):
        images = torch.cat([images for images, _ in data.train_batches(6, 3, epoch)])
        assert torch.equal(images, stored[data.stored_order(3, epoch)])


def test_data_that_augments_in_its_own_way_has_no_copies() -> None:
    with pytest.raises(UserError, match=r"recipe\.augmented_copies=null"):
        Train(Net(conv_net()), Blobs(), dataclasses.replace(RECIPE, augmented_copies=2))


def with_copies(folder: RunFolder | None = None, last: int = -1, **recipe: float) -> Train:
    settings = {"batch_size": 16, "epochs": 4, "augmented_copies": 2, **recipe}
    net = Net(conv_net(), seed=3)
    observers = [Fragile(last)] if last >= 0 else []
    recipe = dataclasses.replace(RECIPE, **settings)
    train = Train(net, Shifted(), recipe, seed=3, folder=folder, observers=observers)
    LastLayer(norm_eval=True).run(net, train)
    return train


def test_training_on_cached_copies_is_training_on_these_copies() -> None:
    plain = with_copies()
    for cached in (with_copies(cache_frozen_mb=1), with_copies(cache_frozen_disk_mb=1)):
        assert cached.skipped.prefix and cached.skipped.prefix.name == "8"
        states = cached.net.state_dict(), plain.net.state_dict()
        for name in states[0]:
            assert torch.allclose(states[0][name].double(), states[1][name].double(), atol=1e-6)
        # the bits of evaluation are the same
        for split in ("train", "val", "test"):
            source = cached.skipped.source.eval_batches(split), cached.data.eval_batches(split)
            for (features, labels), (images, expected) in zip(*source, strict=True):
                with torch.no_grad():
                    assert torch.equal(features, conv_net().eval()[:8](images))
                assert torch.equal(labels, expected)
    # two copies of 48 images once, and four epochs of the last layer
    features = 16 * (4 * 9 + 8 * 36) + 128 * 12
    assert cached.costs.steps == 2 * (96 * features + 4 * 48 * (24 + 24))


def test_activations_in_a_file_have_the_bits_of_those_in_memory_and_leave_nothing(
    tmp_path: Path,
) -> None:
    with RunFolder(tmp_path) as folder:
        on_disk = with_copies(folder, cache_frozen_disk_mb=1)
        assert not list(tmp_path.glob(".activations*"))
    state, expected = on_disk.net.state_dict(), with_copies(cache_frozen_mb=1).net.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_a_resumed_run_uses_the_same_copies(tmp_path: Path) -> None:
    with pytest.raises(Crash), RunFolder(tmp_path) as folder:
        with_copies(folder, 7, cache_frozen_disk_mb=1)
    with RunFolder(tmp_path) as folder:
        resumed = with_copies(folder, cache_frozen_disk_mb=1)
    state, expected = resumed.net.state_dict(), with_copies(cache_frozen_disk_mb=1).net.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_a_disk_without_room_for_activations_ends_no_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error, not the end of the process
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        train = with_copies(cache_frozen_disk_mb=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert train.skipped.prefix is None and "not cached: File too large" in caplog.text


def test_norms_of_a_frozen_model_can_use_their_running_statistics() -> None:
    train = with_copies()
    assert train.net.frozen_norms == {"1"}
    assert torch.equal(train.net.state_dict()["1.running_mean"], torch.zeros(4))


def test_a_compiled_model_computes_all_of_itself() -> None:
    for skipping in ({"cache_frozen_mb": 1}, {"skip_removed_channels": True}):
        with pytest.raises(UserError, match=r"with recipe\.compile=true"):
            dataclasses.replace(RECIPE, compile=True, **skipping)
    with pytest.raises(UserError, match=r"false with recipe\.arithmetic=auto"):
        dataclasses.replace(RECIPE, arithmetic="auto", skip_removed_channels=True)
