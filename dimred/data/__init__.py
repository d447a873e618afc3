"""Data sets. The YAML files in conf/dataset name them as `_target_`."""

from typing import Any

from dimred.data.base import Data
from dimred.data.sets import CIFAR10, CIFAR100, MNIST, SVHN, Digits, FashionMNIST

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "SVHN",
    "Caltech101",
    "Data",
    "Digits",
    "FashionMNIST",
    "TinyImageNet",
    "imagefolder",
]


def __getattr__(name: str) -> Any:
    """Image folders where they are first used: other data sets need no Pillow and no torchvision,
    which are slow to import."""
    if name in ("Caltech101", "TinyImageNet", "imagefolder"):
        from dimred.data import folder

        return getattr(folder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
