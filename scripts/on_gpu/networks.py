"""Networks of the surveys on images in the GPU's memory: the same bits, captured or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import steps
import torch
from bits import made
from steps import CIFAR, DEVICE, INITS, MODELS, noise, recipe

from dimred.conformance.observe import difference
from dimred.models import vit
from dimred.net import Net, State
from dimred.training.loop import Train

STEPS = 40


class Case(NamedTuple):
    """augment: crops and flips, selected within the captured step."""

    model: str
    method: str
    recipe: Mapping[str, Any]
    augment: bool = True


CASES = {
    "ResNet-20 fp32": Case("ResNet-20", "rigl", {}),
    "ResNet-20 bf16, erasing": Case("ResNet-20", "rigl", {"bf16": True, "erasing": 0.5}),
    "VGG-16 fp32, mixed": Case("VGG-16", "rigl", {"mixup": 0.2, "cutmix": 1.0}),
    "VGG-16 bf16": Case("VGG-16", "rigl", {"bf16": True}),
    "VGG-16, channels removed": Case(
        "VGG-16", "channel_at_init", {"skip_removed_channels": True}, augment=False
    ),
    "ResNet-20, frozen layers cached": Case(
        "ResNet-20", "freeze_out", {"cache_frozen_mb": 500}, augment=False
    ),
    "ViT fp32": Case("ViT", "rigl", {}),
    "ViT bf16": Case("ViT", "rigl", {"bf16": True}),
}

COMPILED = {
    "ResNet-20 fp32, compiled": Case("ResNet-20", "rigl", {"compile": True}),
    "ResNet-20 bf16, compiled": Case("ResNet-20", "rigl", {"compile": True, "bf16": True}),
}

build_vit = partial(
    vit, shape=CIFAR, classes=10, patch=None, dim=96, depth=3, heads=3, mlp=2, **INITS
)


def networks() -> dict[str, Any]:
    """Networks of the surveys, with augmentation: captured steps against eager ones, and again."""
    wrong = [label for label, case in CASES.items() if differs(label, case)]
    return {"wrong": wrong, "ViT, ms a step": attention()}


def compiled() -> dict[str, Any]:
    """The same with torch.compile, and milliseconds a step; it takes some minutes."""
    wrong = [label for label, case in COMPILED.items() if differs(label, case)]
    return {"wrong": wrong, **steps.compiled()}


def attention() -> dict[str, float]:
    """Milliseconds of a captured step of the ViT, by deterministic kernels and the fastest ones."""
    found = {}
    for bf16 in (False, True):
        for deterministic in (True, False):
            step = steps.Sparse(
                build_vit, noise(CIFAR), bf16, False, "auto", deterministic=deterministic
            )
            key = f"{'bf16' if bf16 else 'fp32'}, deterministic={deterministic}"
            found[key] = round(steps.median_of(step, small=True), 3)
            print(f"ViT {key}: {found[key]} ms a step", flush=True)
    return found


def differs(label: str, case: Case) -> bool:
    """Whether captured steps end with other bits than eager ones, or than captured ones again."""
    eager, _ = trained(case, False)
    captured, count = trained(case, "auto")
    again, _ = trained(case, "auto")
    found = difference(eager, captured), difference(captured, again)
    verdicts = [f"DIFFERS in {name}" if name else "same" for name in found]
    print(
        f"{label:34} {count:3} of {STEPS} captured: {verdicts[0]}; again: {verdicts[1]}", flush=True
    )
    return any(found)


def trained(case: Case, capture: Any) -> tuple[State, int]:
    """The state at the end, and the number of captured steps."""
    torch.manual_seed(0)
    build, shape = MODELS.get(case.model, (build_vit, CIFAR))
    net, data = Net(build(), seed=0).to(DEVICE), noise(shape, 1280, case.augment)
    how = recipe(capture=capture, **case.recipe)
    train = Train(net, data, dataclasses.replace(how, steps=STEPS))
    made(case.method)().run(net, train)
    return net.state(), train.stepper.captured
