"""Data sets; a YAML in conf/dataset names one of these as its `_target_`."""

from dimred.data.base import Data
from dimred.data.folder import Caltech101, TinyImageNet, imagefolder
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
