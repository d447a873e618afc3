"""Which steps may be captured in a CUDA graph, found by recording two of them.

Tensors on a GPU are PyTorch's fake ones here."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef

from dimred.conformance.toy import RECIPE
from dimred.data.arrays import Examples
from dimred.data.augmentation import Augmentation
from dimred.data.memory import Memory
from dimred.data.mixed import Mixed
from dimred.training.evaluate import RunningLoss
from dimred.training.tape import Recorder

# fake tensors lie nowhere
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")


def recorded(step: Callable[[], Any], changed: Callable[[], Any]) -> str:
    """Why a step and the next one cannot be the same graph."""
    tapes = []
    for _ in range(2):
        with Recorder() as recorder:
            step()
        tapes.append(recorder.tape)
        changed()
    return tapes[0].difference(tapes[1])


class Numbers:
    """A step of one operation, on a number or a tensor that changes between steps."""

    def __init__(self) -> None:
        self.tensor, self.number, self.place = torch.arange(6.0), 2.0, torch.zeros(1)
        self.host = torch.tensor(1.0)
        with FakeTensorMode(allow_non_fake_inputs=True):  # without values, on no device
            self.gpu = torch.empty(6, device="cuda")

    def change(self) -> None:
        self.number += 1
        self.place = self.place + 1
        self.host += 1


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (lambda n: n.tensor * 2 + n.tensor.sum(), ""),
        (lambda n: n.tensor.clone().mul_(3).sort(), ""),
        (lambda n: n.tensor * n.number, "aten.mul.Tensor has 2.0 in one step and 3.0 in the next"),
        (lambda n: n.tensor + n.place, "aten.add.Tensor has 0x"),
        (lambda n: n.tensor[2].item(), "reads a number back from the device"),
        (lambda n: torch.equal(n.tensor, n.tensor), "reads a number back from the device"),
        (lambda n: n.tensor.nonzero(), "size depends on its values"),
        (lambda n: n.tensor.unique_consecutive(), "size depends on its values"),
        (lambda n: torch.linalg.inv(torch.eye(2)), "reads back whether it has succeeded"),
        (lambda n: n.tensor[n.tensor > 2], "selects by a mask"),
        (lambda n: n.tensor[n.tensor.long()], ""),
        (lambda n: n.gpu.cpu(), "aten._to_copy copies between the host and the device"),
        (lambda n: n.gpu.sum().cpu(), "aten._to_copy copies between the host and the device"),
        (lambda n: n.gpu.copy_(n.tensor), "aten.copy_ copies between the host and the device"),
        (lambda n: n.gpu.copy_(n.host), "aten.copy_ copies between the host and the device"),
        (lambda n: n.gpu * n.host, "aten.mul.Tensor has 1.0 in one step and 2.0 in the next"),
        (lambda n: n.gpu * torch.ones(()), ""),
        (lambda n: n.tensor.to("meta"), ""),
        (lambda n: n.tensor * torch.tensor([1.0] * 6), "puts a number of Python into a tensor"),
        (lambda n: torch.rand(3, generator=torch.Generator()), "generator of its own"),
        (lambda n: n.tensor * (random.random() < 2), "random numbers of Python's or numpy's"),
        (lambda n: torch.zeros(int(n.number)), "aten.zeros.default has 2 in one step and 3"),
        (lambda n: [n.tensor + 1] * int(n.number), ""),
        (lambda n: [n.tensor + 1 for _ in range(int(n.number))], "one step has 2 operations, the"),
    ],
)
def test_a_step_may_be_captured_if_it_repeats_itself(
    step: Callable[[Numbers], Any], why: str
) -> None:
    numbers = Numbers()
    found = recorded(lambda: step(numbers), numbers.change)
    assert (why in found) if why else not found, found


def test_recording_keeps_no_memory_that_a_step_frees() -> None:
    numbers = Numbers()

    def step() -> None:
        made = numbers.tensor * 2
        storage = StorageWeakRef(made.untyped_storage())
        del made
        assert storage.expired()

    assert recorded(step, numbers.change) == ""


class Images(Memory):
    name = "images"

    def read(self) -> tuple[Examples, ...]:
        pixels = torch.zeros(30, 3, 8, 8, dtype=torch.uint8)
        labels = torch.arange(30) % 4
        return Examples(pixels[:20], labels[:20]), Examples(pixels[20:], labels[20:])


def test_on_a_gpu_batches_are_selected_and_losses_are_kept_without_the_host() -> None:
    data = Images(
        val_fraction=0.0, resize=None, mean=[0.5] * 3, std=[1] * 3, crop_padding=2, flip=True
    )
    gpu = torch.device("cuda", 0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        moved = data.with_augmentation(Augmentation(erasing=0.5)).to(gpu)
        feed, losses = moved.feed(6, fixed=True), RunningLoss(RECIPE, 1, gpu)
        for _ in feed.steps(0, 0):
            with Recorder() as recorder:
                images, labels = feed.batch()
                losses.add(images.mean(), images.mean((2, 3)), labels)
            assert images.device == labels.device == gpu
            assert recorder.tape.lines and not recorder.tape.offence
        for mixup, cutmix in ((0.2, 0), (0, 0.2)):
            for batch in Mixed(moved, mixup, cutmix).train_batches(6, 0, 0):
                assert {each.device for each in batch} == {gpu}
