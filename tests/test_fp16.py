"""float16 with loss scaling: the steps of torch.amp.GradScaler."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from several import on_ranks
from torch import Tensor, nn
from toy import RECIPE, Blobs, Crash, Fragile, set_up

from dimred.errors import UserError
from dimred.net import Net
from dimred.storage.folder import RunFolder
from dimred.training.group import Group
from dimred.training.loop import Train
from dimred.training.ranks import ALONE, Ranks

FP16 = dataclasses.replace(RECIPE, fp16=True, channels_last=False, lr=1e-5, weight_decay=0.0)


class Large(Blobs):
    """Inputs so large that scaled gradients overflow in float16 at first."""

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in super().train_batches(batch_size, seed, epoch, start):
            yield 400 * images, labels


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 2))


def trained(
    steps: int = 12, ranks: Ranks = ALONE, folder: RunFolder | None = None, last: int = -1
) -> Train:
    net = Net(model(), seed=3)
    recipe = dataclasses.replace(FP16, steps=steps)
    train = Train(net, Large(), recipe, seed=3, ranks=ranks, folder=folder)
    train.observers.append(Fragile(last))
    train()
    return train


def test_steps_are_those_of_pytorchs_grad_scaler() -> None:
    train = trained()
    plain = model()
    optimizer = torch.optim.SGD(plain.parameters(), lr=1e-5, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu")
    scales = [scaler.get_scale()]
    batches = [*Large().train_batches(8, 3, 0), *Large().train_batches(8, 3, 1)]
    for images, labels in batches[:12]:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            logits = plain(images)
        scaler.scale(F.cross_entropy(logits.float(), labels)).backward()
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    skipped = sum(now < before for before, now in pairwise(scales))
    assert 0 < skipped < 12
    assert train.stepper.report() == {
        "captured_steps": 0,
        "loss_scale": scales[-1],
        "skipped_steps": skipped,
    }
    for ours, theirs in zip(
        train.net.state_dict().values(), plain.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_gradients_at_the_pause_are_not_scaled_and_finite() -> None:
    net = Net(model(), seed=3)
    net.keep({"1.weight": torch.arange(0, 192, 2)})
    train = Train(net, Large(), dataclasses.replace(FP16, steps=12), seed=3)
    overflows = 0
    for _ in train.steps(dense_grad=lambda t: True):
        found = net.grads()
        assert train.stepper.scaling
        overflows += train.stepper.scaling.overflowed
        assert all(gradient.isfinite().all() for gradient in found.values())
        largest = max(float(gradient.abs().max()) for gradient in found.values())
        assert largest < 1000  # 65536 times as much, if it were scaled
        dense = found["1.weight"].view(-1)[::2]
        assert torch.equal(dense, net.weights["1.weight"].psi.grad)
    assert overflows > 0


def test_a_resumed_run_has_the_same_scale_and_bits(tmp_path: Path) -> None:
    whole, folder = trained(), RunFolder(tmp_path)
    with pytest.raises(Crash):
        trained(folder=folder, last=7)
    again = trained(folder=folder)
    assert again.stepper.report() == whole.stepper.report()
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, again.net.state_dict()[name])


def on_a_rank() -> list[Any]:
    train = trained(ranks=Group())
    weights = [value.tolist() for value in train.net.state_dict().values()]
    return [train.stepper.report(), weights]


def test_all_ranks_skip_the_same_steps(tmp_path: Path) -> None:
    first, second = on_ranks({"found": partial(on_a_rank)}, 2, tmp_path)
    assert first["found"] == second["found"]
    assert first["found"][0]["skipped_steps"] > 0


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"bf16": True}, r"recipe.fp16=true is not allowed.*choose one of the two"),
        ({"capture": True}, r"recipe.capture=true is not allowed.*fp16"),
    ],
)
def test_what_fp16_excludes_is_refused(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        set_up(fp16=True, **recipe)


@pytest.mark.parametrize("theta", ["kept", "rewritten"])
def test_nets_with_norms_and_convolutions_learn_in_fp16(theta: str) -> None:
    net, train = set_up(fp16=True, theta=theta)
    net.keep({"4.weight": torch.arange(0, 768, 3)})
    train()
    assert train.evaluate("test")[1] > 0.8
