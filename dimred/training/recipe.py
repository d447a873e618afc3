"""How to train: the recipe, and the learning rate and optimiser that follow from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from dimred.errors import require
from dimred.net import Net


@dataclass(frozen=True)
class Recipe:
    """How to train; everything is a function of the step."""

    optimizer: Literal["sgd", "adam", "adamw"]
    lr: float
    momentum: float  # of sgd
    nesterov: bool
    weight_decay: float  # of weights
    decay_all: bool = field(default=False, kw_only=True)  # biases and norms decay, too
    schedule: Literal["constant", "step", "cosine"]
    milestones: tuple[
        float, ...
    ]  # of step: fractions of training at which lr is multiplied by gamma
    gamma: float
    warmup: float  # fraction of training in which lr rises linearly from 0
    label_smoothing: float
    clip: float | None  # largest norm of the gradient
    batch_size: int
    epochs: int | float
    steps: int | None  # instead of epochs
    bf16: bool  # autocast to bfloat16
    channels_last: bool
    compile: bool  # torch.compile

    def __post_init__(self) -> None:
        for name in ("lr", "batch_size", "epochs"):
            require(
                getattr(self, name) > 0, f"recipe.{name}", getattr(self, name), "a number above 0"
            )
        for name in ("weight_decay", "gamma"):
            require(getattr(self, name) >= 0, f"recipe.{name}", getattr(self, name), "0 or more")
        for name in ("momentum", "warmup", "label_smoothing"):
            require(
                0 <= getattr(self, name) < 1,
                f"recipe.{name}",
                getattr(self, name),
                "a number in [0, 1)",
            )
        require(
            all(0 < m < 1 for m in self.milestones),
            "recipe.milestones",
            self.milestones,
            "fractions in (0, 1)",
        )
        require(
            self.steps is None or self.steps > 0,
            "recipe.steps",
            self.steps,
            "null or a number above 0",
        )
        require(
            self.clip is None or self.clip > 0, "recipe.clip", self.clip, "null or a number above 0"
        )
        require(
            not self.nesterov or self.momentum > 0,
            "recipe.nesterov",
            self.nesterov,
            "false where momentum is 0",
        )

    def lr_at(self, step: int, total: int) -> float:
        """The learning rate of a step of `total`."""
        warmup = round(self.warmup * total)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        if self.schedule == "cosine":
            return self.lr / 2 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
        passed = [m for m in self.milestones if step >= round(m * total)]
        return self.lr * self.gamma ** (len(passed) if self.schedule == "step" else 0)

    def logits(self, model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """The logits of a batch in float32, computed in the recipe's memory and number format."""
        if self.channels_last:
            images = images.to(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            return model(images).float()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The training loss of a batch."""
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def make_optimizer(self, net: Net) -> torch.optim.Optimizer:
        """An optimiser of psi and of the parameters that are not covered. By default biases and
        norms do not decay."""
        never = orthogonal(net.model)
        weights, others, held = list[Tensor](), list[Tensor](), list[Tensor]()
        for name, parameter in net.parameters().items():
            if name in never:
                held.append(parameter)
            elif name in net.weights or parameter.dim() > 1:
                weights.append(parameter)
        for parameter in net.uncovered.values():
            if parameter.dim() <= 1:
                others.append(parameter)
        decays = self.weight_decay if self.decay_all else 0.0
        groups = [
            {"params": weights, "weight_decay": self.weight_decay},
            {"params": others, "weight_decay": decays},
            {"params": held, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        # one kernel for all parameters; on a CPU it gains nothing
        fused = next(net.model.parameters()).is_cuda
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=fused
            )
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(groups, lr=self.lr, fused=fused)


def orthogonal(model: nn.Module) -> set[str]:
    """The parameters of orthogonal parametrizations. These must not decay: PyTorch stores the signs
    of a matrix in them as integers, and the least decay makes the whole weight zero."""
    found = set()
    for name, module in model.named_modules():
        kinds = {type(each).__name__ for each in module.children()}
        if isinstance(module, ParametrizationList) and "_Orthogonal" in kinds:
            found.add(f"{name}.original")
    return found
