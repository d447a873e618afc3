"""The recipe of a training, and the learning rate and optimiser that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from dimred.data.augmentation import Augmentation
from dimred.data.base import Data
from dimred.fields import (
    Checked,
    Count,
    Fraction,
    NotNegative,
    OpenFraction,
    Positive,
    UnitInterval,
    above,
)
from dimred.net import Net
from dimred.net.eager import SGD, Adam, AdamW
from dimred.net.forward import in_channels_last
from dimred.training.learning_rates import fraction
from dimred.training.recipe_limits import require_consistent


@dataclass(frozen=True, kw_only=True)
class Recipe(Checked):
    """The settings of a training. The learning rate is a function of the step alone, so that
    rewinding and resuming need no schedule state."""

    group: ClassVar[str] = "recipe"
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Positive = 0.1
    momentum: UnitInterval = 0.9  # of sgd
    nesterov: bool = False
    weight_decay: NotNegative = 0.0005  # of weights; see decay_all
    decay_all: bool = False  # weight decay of biases and norms, too
    # see training/learning_rates.py
    schedule: Literal[
        "constant", "step", "cosine", "linear", "polynomial", "one_cycle", "cyclic"
    ] = "step"
    # schedule=step multiplies lr by gamma at these fractions of training
    milestones: tuple[OpenFraction, ...] = (0.5, 0.75)
    gamma: NotNegative = 0.1
    power: Positive = 1.0  # of polynomial
    cycles: Count = 1  # of cyclic, in the whole training
    lowest: UnitInterval = 0.1  # of cyclic: the lowest learning rate, as a fraction of lr
    warmup: UnitInterval = 0.0  # fraction of training in which lr rises linearly from 0
    label_smoothing: UnitInterval = 0.0
    # of training images, besides crops and flips (see data/augmentation.py)
    augment: Literal["none", "randaugment", "trivialaugment"] = "none"
    erasing: Fraction = 0.0  # the probability of random erasing
    # MixUp and CutMix (see data/mixed.py): alpha of Beta(alpha, alpha); 0 for none
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    clip: Positive | None = None  # largest L2 norm of the gradient
    batch_size: Count = 64
    accumulate: Count = 1  # micro-batches of a batch, computed one after the other
    epochs: Annotated[int | float, above(0)] = 40
    steps: Count | None = None  # instead of epochs
    ema: UnitInterval = 0.0  # decay of an average of the weights (see training/average.py)
    patience: Count | None = None  # early stopping (see training/patience.py)
    bf16: bool = False  # autocast to bfloat16
    fp16: bool = False  # autocast to float16, with loss scaling (see training/loss_scaling.py)
    channels_last: bool = True
    compile: bool = False  # torch.compile
    # steps as CUDA graphs: true, false, or auto, where there is a GPU (see training/capture.py)
    capture: Literal["auto", True, False] = "auto"
    # on a GPU, kernels with the same bits in every run, or the fastest (training/deterministic.py)
    deterministic: bool = True
    # augmented copies of each training image, drawn once; without a number, anew in every epoch
    augmented_copies: Count | None = None
    # megabytes for stored activations of frozen layers (see training/frozen.py): of memory, and of
    # the disk for those that are larger
    cache_frozen_mb: NotNegative = 0
    cache_frozen_disk_mb: NotNegative = 0
    # products with weights of which a part trains (see training/arithmetic.py)
    arithmetic: Literal["dense", "sparse", "auto"] = "dense"
    # compute the channels that remain after structured pruning alone (see training/skipped.py)
    skip_removed_channels: bool = False
    # on several processes, BatchNorm over the whole batch instead of each share (training/ranks.py)
    sync_batchnorm: bool = False
    # dense weights of which a part trains: in memory, or only while in use (net/rewritten.py)
    theta: Literal["kept", "rewritten"] = "kept"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_consistent(self)

    def total_steps(self, epoch_steps: int) -> int:
        """The steps of a training whose epochs have so many."""
        return self.steps or max(1, round(self.epochs * epoch_steps))

    def lr_at(self, step: int, total: int) -> float:
        """The learning rate of a step in a training of `total` steps."""
        return self.lr * fraction(self, step, total)

    def logits(self, model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """The logits of a batch in float32, computed in the recipe's memory and number format."""
        if self.channels_last:
            images = in_channels_last(images)
        half = torch.float16 if self.fp16 else torch.bfloat16
        with torch.autocast(images.device.type, half, enabled=self.bf16 or self.fp16):
            return model(images).float()

    def augmented(self, data: Data) -> Data:
        """The data with the recipe's augmentation, and its number of copies."""
        more = Augmentation(self.augment, self.erasing)
        if more != Augmentation():
            data = data.with_augmentation(more)
        return data.with_copies(self.augmented_copies) if self.augmented_copies else data

    @property
    def mixes(self) -> bool:
        """Whether training images are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The training loss of a batch; labels are classes (N,) or probabilities (N, classes)."""
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def make_optimizer(self, net: Net) -> torch.optim.Optimizer:
        """An optimiser of psi and of the parameters that are not covered. By default biases and
        norms have no weight decay."""
        never = orthogonal(net.model)
        weights, others, held = list[Tensor](), list[Tensor](), list[Tensor]()
        for name, parameter in net.parameters().items():
            if name in never:
                held.append(parameter)
            # covered biases and norms are pruned like weights, and decay like them
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
        # one kernel for all parameters; no faster on a CPU
        fused = next(net.model.parameters()).is_cuda
        if self.optimizer == "sgd":
            return SGD(
                groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=fused
            )
        kind = Adam if self.optimizer == "adam" else AdamW
        return kind(groups, lr=self.lr, fused=fused, capturable=fused)


def orthogonal(model: nn.Module) -> set[str]:
    """The parameters of orthogonal parametrizations, which must not decay: PyTorch stores signs of
    the matrix in them as integers, and the slightest decay sets the whole weight to zero."""
    found = set()
    for name, module in model.named_modules():
        kinds = {type(each).__name__ for each in module.children()}
        if isinstance(module, ParametrizationList) and "_Orthogonal" in kinds:
            found.add(f"{name}.original")
    return found
