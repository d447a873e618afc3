"""The step table and the throughput of whole loops, on data in the GPU's memory."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from dimred.data.arrays import Examples
from dimred.data.memory import Memory
from dimred.methods.dynamic_sparse_training.rigl import RigL
from dimred.models import lenet300, resnet, vgg, wide_resnet
from dimred.net import Net
from dimred.scores import random_scores
from dimred.select.allocations import ERK
from dimred.select.topk import topk
from dimred.training.loop import Train
from dimred.training.observers import Observer
from dimred.training.recipe import Recipe

DEVICE = "cuda"
DENSITY = 0.05
STEPS = 100, 700  # of loops: between these they are timed
INITS = {"init": "kaiming_normal", "pretrained": None}
CIFAR, MNIST = (3, 32, 32), (1, 28, 28)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "LeNet-300-100": (lambda: lenet300(shape=MNIST, classes=10, **INITS), MNIST),
    "ResNet-20": (
        lambda: resnet(shape=CIFAR, classes=10, depth=20, width=1, shortcut="conv", **INITS),
        CIFAR,
    ),
    "VGG-16": (lambda: vgg(shape=CIFAR, classes=10, depth=16, **INITS), CIFAR),
    "WRN-28-2": (
        lambda: wide_resnet(shape=CIFAR, classes=10, depth=28, width=2, **INITS),
        CIFAR,
    ),
    "ResNet-50": (lambda: torchvision.models.resnet50(num_classes=10), (3, 224, 224)),
}


class Noise(Memory):
    """Random images of the shape of CIFAR or MNIST, in memory."""

    def read(self) -> tuple[Examples, ...]:
        draws = torch.Generator().manual_seed(0)
        parts = []
        for count in (self.examples, 64):
            images = torch.randint(256, (count, *self.image), dtype=torch.uint8, generator=draws)
            parts.append(Examples(images, torch.randint(10, (count,), generator=draws)))
        return tuple(parts)


def noise(shape: tuple[int, int, int], examples: int = 12800, augment: bool = True) -> Memory:
    Noise.image, Noise.examples, Noise.name = shape, examples, "noise"
    data = Noise(val_fraction=0.0, resize=None, mean=None, std=None,
                 crop_padding=4 if augment else 0, flip=augment)  # fmt: skip
    return data.to(torch.device(DEVICE))


def recipe(**more: Any) -> Recipe:
    return Recipe(batch_size=128, lr=0.01, epochs=1000, schedule="constant", **more)


def graphed(step: Callable[[], None]) -> Callable[[], None]:
    """A step of plain PyTorch, captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay(kept: Callable[[], None] = step) -> None:  # with the step, its parameters are kept
        graph.replay()

    return replay


def dense_step(build: Callable[[], nn.Module], images: Tensor, labels: Tensor, bf16: bool,
               compiled: bool) -> Callable[[], None]:  # fmt: skip
    """forward, backward and fused SGD of plain PyTorch in channels_last."""
    model = build().to(DEVICE).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True
    )
    net = torch.compile(model) if compiled else model
    if images.dim() == 4:
        images = images.to(memory_format=torch.channels_last)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=bf16):
            logits = net(images).float()
        F.cross_entropy(logits, labels).backward()
        optimizer.step()

    return step


class Sparse:
    """dimred's own step, of a static random support by ERK."""

    def __init__(self, build: Callable[[], nn.Module], data: Memory, bf16: bool, compiled: bool,
                 capture: Any, **more: Any) -> None:  # fmt: skip
        net = Net(build(), seed=0).to(DEVICE)
        train = Train(net, data, recipe(bf16=bf16, compile=compiled, capture=capture, **more))
        scores = random_scores(net, "support")
        net.keep(topk(scores, ERK(power=1.0)(net, DENSITY)))
        net.optimizer_state.set_lr(0.01)
        self.train, self.count = train, 0
        self.batches = iter(train.stepper.feed.steps(0, 0))
        next(self.batches)

    def __call__(self) -> None:
        """The same batch again and again, as plain PyTorch has it; without the loop."""
        self.train.stepper.gradients()
        self.train.stepper.update()
        self.train.running_loss._row.zero_()


def timed(step: Callable[[], None], steps: int) -> float:
    """Milliseconds a step."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(steps):
        step()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / steps


def steps() -> dict[str, Any]:
    """Milliseconds a step: dense PyTorch and dimred at 5 % density, eager and captured."""
    rows, wrong = {}, []
    for name in MODELS:
        for bf16 in (False, True):
            key = label(name, bf16)
            rows[key] = now = row(name, bf16, compiled=False)
            if now["dimred captured, MB"] > 1.3 * now["dimred eager, MB"] + 100:
                wrong.append(f"{key}: a captured step takes more memory than an eager one")
    return {"wrong": wrong, **rows}


def compiled() -> dict[str, Any]:
    """The same with torch.compile, of two models in bf16."""
    return {label(name, True): row(name, True, compiled=True) for name in ("ResNet-20", "VGG-16")}


def label(name: str, bf16: bool) -> str:
    return f"{name} {'bf16' if bf16 else 'fp32'}"


def row(name: str, bf16: bool, compiled: bool) -> dict[str, float]:
    """Milliseconds of each kind of step, and its peak memory with all that is reserved."""
    build, shape = MODELS[name]
    data = noise(shape, augment=False)
    images, labels = next(data.train_batches(128, 0, 0))
    dense = partial(dense_step, build, images, labels, bf16, compiled)
    sparse = partial(Sparse, build, data, bf16, compiled)
    contestants: dict[str, Callable[[], Callable[[], None]]] = {
        "dense captured": lambda: graphed(dense()),
        "dimred captured": lambda: sparse(True),
    }
    if not compiled:
        contestants |= {"dense eager": dense, "dimred eager": lambda: sparse(False)}
    found: dict[str, float] = {}
    for each, make in contestants.items():
        torch.cuda.reset_peak_memory_stats()
        found[each] = round(median_of(make(), shape[1] < 224), 3)
        found[f"{each}, MB"] = round(torch.cuda.max_memory_reserved() / 1e6)
        # graphs hold memory until they are gone, and they are parts of cycles
        gc.collect()
        torch.cuda.empty_cache()
    found["ratio captured"] = round(found["dimred captured"] / found["dense captured"], 3)
    print(f"{label(name, bf16):20}", found, flush=True)
    return found


def median_of(step: Callable[[], None], small: bool) -> float:
    timed(step, 12 if small else 4)
    return median(timed(step, 20 if small else 6) for _ in range(5 if small else 3))


def loop() -> dict[str, Any]:
    """Images a second of whole loops of RigL: batches, augmentation, rewiring every 100 steps."""
    rows = {}
    for name in ("LeNet-300-100", "ResNet-20", "VGG-16"):
        build, shape = MODELS[name]
        for bf16 in (False, True):
            for capture in (False, "auto"):
                data = noise(shape, 45056, augment=shape == CIFAR)
                net = Net(build(), seed=0).to(DEVICE)
                seconds = []
                how = recipe(bf16=bf16, capture=capture)
                train = Train(net, data, dataclasses.replace(how, steps=STEPS[1]))
                train.observers.append(Clock(seconds))
                RigL(sparsity=1 - DENSITY, update_every=100).run(net, train)
                rate = 128 * (STEPS[1] - STEPS[0]) / (seconds[1] - seconds[0])
                key = f"{label(name, bf16)} capture={capture}"
                rows[key] = round(rate)
                print(
                    f"{key:40} {rate:10,.0f} images/s, {train.stepper.captured} captured",
                    flush=True,
                )
    return rows


class Clock(Observer):
    def __init__(self, seconds: list[float]) -> None:
        self.seconds = seconds

    def after_update(self, train: Train, step: int) -> None:
        if step + 1 in STEPS:
            torch.cuda.synchronize()
            self.seconds.append(time.monotonic())
