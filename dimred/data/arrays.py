"""Examples as tensors: converts images and labels to one form, or reports why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dimred.errors import UserError


class Examples(NamedTuple):
    images: Tensor  # (n, C, H, W): uint8 pixels, or float32 values that are used as they are
    labels: Tensor  # int64 (n,)

    def at(self, positions: np.ndarray) -> Examples:
        index = torch.from_numpy(positions)
        return Examples(self.images[index], self.labels[index])


def tidy(examples: Examples, what: str) -> Examples:
    """The examples in the form of `Examples`. UserError, naming `what`, if they cannot be converted
    without guessing.

    Images (n, H, W) have one channel. Integers of any type from 0 to 255 are 8-bit pixels; booleans
    become 0 and 255. Labels are whole numbers of any type, of shape (n,) or (n, 1).
    """
    images, labels = (torch.as_tensor(given) for given in examples)
    images = images[:, None] if images.dim() == 3 else images
    if images.dim() != 4 or len(images) != len(labels):
        raise UserError(
            f"{what} has images of shape {tuple(images.shape)} and labels of shape "
            f"{tuple(labels.shape)}; "
            "allowed are images (n, channels, height, width) and labels (n,)."
        )
    return Examples(tidy_images(images, what), tidy_labels(labels, what))


def tidy_images(images: Tensor, what: str) -> Tensor:
    if images.dtype == torch.uint8 or not images.numel():
        return images
    if images.dtype == torch.bool:
        return images.to(torch.uint8) * 255
    if images.is_floating_point():
        if not images.isfinite().all():
            raise UserError(
                f"{what} has images with infinite or NaN values. Repair or remove them."
            )
        return images.to(torch.float32)
    if images.is_complex():
        raise UserError(
            f"{what} has complex images. Convert them to real ones, such as their absolute values."
        )
    values = images.numpy()  # torch has no minimum of uint16
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 255:
        raise UserError(
            f"{what} has images of type {images.dtype} with values from {low} to {high}; allowed "
            "are pixels from 0 to 255, or floating-point numbers, which are used as they are. "
            f"Scale them, for instance: images.float() / {high or 1}."
        )
    return torch.from_numpy(values.astype(np.uint8))


def tidy_labels(labels: Tensor, what: str) -> Tensor:
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dim() != 1:
        raise UserError(
            f"{what} has labels of shape {tuple(labels.shape)}; allowed is one class number per "
            "example, (n,). Convert one-hot rows with labels.argmax(1)."
        )
    whole = labels.to(torch.float64)
    if not (whole == whole.floor()).all() or not (whole >= 0).all():
        wrong = labels[(whole != whole.floor()) | (whole < 0)][0].item()
        raise UserError(
            f"{what} has the label {wrong}; allowed are whole numbers from 0 to the number of "
            "classes less one. Number the classes from 0."
        )
    return whole.to(torch.int64)


def classes_of(parts: Sequence[Examples]) -> tuple[int, list[str]]:
    """The number of classes, and notes for the user. The first part is the training set."""
    classes = max(int(part.labels.max()) + 1 for part in parts if len(part.labels))
    counts = torch.bincount(parts[0].labels, minlength=classes)
    absent = (counts == 0).nonzero().view(-1).tolist()
    if not absent:
        return classes, []
    listed = ", ".join(map(str, absent[:5])) + (", ..." if len(absent) > 5 else "")
    return classes, [
        f"labels go from 0 to {classes - 1}, but no training example has {listed}: the model has "
        "unused outputs. Number the classes from 0 without gaps to avoid that"
    ]


def resized(examples: Examples, size: int | None) -> Examples:
    """The examples with square images of `size` pixels, bilinear with antialiasing. None keeps
    their size."""
    if size is None or tuple(examples.images.shape[2:]) == (size, size):
        return examples
    from torchvision.transforms.v2 import functional as vision  # slow to import

    return examples._replace(images=vision.resize(examples.images, [size, size], antialias=True))
