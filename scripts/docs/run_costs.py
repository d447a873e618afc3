"""What one run costs: images, FLOPs, and images a second on a GPU.

A run trains on epochs x examples x rounds images; a GPU trains on so many a second as was measured
on an H100 (docs/gpu.md), for a model that was not measured so many as its FLOPs ask for at the rate
of its kin.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from dimred import models
from dimred.net import Net
from dimred.training.flops import Costs


class Images(NamedTuple):
    shape: tuple[int, int, int]
    classes: int
    train: int
    test: int


DATA = {
    "Digits": Images((1, 8, 8), 10, 1438, 359),
    "MNIST": Images((1, 28, 28), 10, 60_000, 10_000),
    "CIFAR10": Images((3, 32, 32), 10, 50_000, 10_000),
    "CIFAR100": Images((3, 32, 32), 100, 50_000, 10_000),
    "TinyImageNet": Images((3, 64, 64), 200, 100_000, 10_000),
}

#: images a second of whole captured trainings on an H100 (fp32 as TF32, bf16), of docs/gpu.md; of
#: WRN-28-2 only steps were measured
MEASURED = {
    "lenet300": (477_000, 562_000),
    "resnet20": (33_900, 43_200),
    "vgg16": (33_400, 45_100),
    "wrn28_2": (128 / 4.92e-3, 128 / 3.28e-3),
}
#: a model that was not measured is taken for as fast, by FLOPs, as this one
KIN = {
    ("resnet", 1): "resnet20",
    ("resnet", 2): "wrn28_2",
    ("wide_resnet", 2): "wrn28_2",
    ("resnet18", 1): "vgg16",
    ("vgg", None): "vgg16",
}
#: too small for a GPU: their steps take as long as those of LeNet-300-100
SMALL = ("lenet300", "lenet5", "lenet", "mlp")
OF_KIN: Mapping[str, tuple[dict[str, Any], str]] = {
    "resnet20": ({"_target_": "resnet", "depth": 20, "width": 1, "shortcut": "conv"}, "CIFAR10"),
    "wrn28_2": ({"_target_": "wide_resnet", "depth": 28, "width": 2}, "CIFAR10"),
    "vgg16": ({"_target_": "vgg", "depth": 16}, "CIFAR10"),
}


def rounds(method: Mapping[str, Any]) -> int:
    """How many trainings a method consists of."""
    if method["_target_"] == "IMP":
        left_in_a_round = 1 - method["prune_rate"]
        if left_in_a_round <= 0:
            return 2
        return 1 + math.ceil(math.log(1 - method["sparsity"]) / math.log(left_in_a_round))
    if method["_target_"] == "ContinuousSparsification":
        return int(method["rounds"]) + 1
    return 2 if method["_target_"] == "RareGems" else 1


def images(description: Mapping[str, Any]) -> float:
    """How many images a run trains on, in all rounds."""
    recipe, train = description["recipe"], trained_on(description["dataset"])
    steps = recipe["steps"] or recipe["epochs"] * (train // recipe["batch_size"])
    return float(steps * recipe["batch_size"] * rounds(description["method"]))


def trained_on(data: Mapping[str, Any]) -> float:
    """The images of a training set, without those held out for validation."""
    return DATA[data["_target_"]].train * (1 - data.get("val_fraction", 0.0))


def flops(model: Mapping[str, Any], data: str) -> int:
    """FLOPs of dense training for one image, forward and backward."""
    return _flops(json.dumps(model, sort_keys=True), data)


@cache
def _flops(model: str, data: str) -> int:
    return Costs(built(json.loads(model), data), DATA[data].shape).dense_step


def built(model: Mapping[str, Any], data: str) -> Net:
    """The dense net of a model; its weights do not matter."""
    about, fields = DATA[data], dict(model)
    build = getattr(models, fields.pop("_target_"))
    fields |= {"shape": about.shape, "classes": about.classes, "pretrained": None}
    takes = inspect.signature(build).parameters
    given = {"init": "kaiming_normal", "shortcut": "conv"} | fields
    return Net(build(**{key: value for key, value in given.items() if key in takes}), initial=dict)


def rate(description: Mapping[str, Any]) -> tuple[float, str] | None:
    """Images a second on one GPU, and the model that this was measured with; None if unknown."""
    model, data = description["model"], description["dataset"]["_target_"]
    target, half = model["_target_"], bool(description["recipe"]["bf16"])
    if data not in DATA:
        return None
    if target in SMALL:
        return MEASURED["lenet300"][half], "lenet300"
    kin = KIN.get((target, model.get("width")))
    if kin is None:
        return None
    known, of = OF_KIN[kin]
    return MEASURED[kin][half] * flops(known, of) / flops(model, data), kin
