"""Data sets. The YAML files in conf/dataset name them as `_target_`.

Read base.py first: what a data set is.

kinds of data sets   sets.py folder.py npz.py sources.py tokens.py
where images lie     memory.py, or read when they are used: stream.py workers.py
their batches        feed.py share.py mixed.py augmentation.py activations.py
files of images      images.py layout.py encoded.py shards.py arrow.py pixels.py crops.py names.py
texts and arrays     texts.py arrays.py
on disk              files.py; of `dimred data prepare`: prepare.py manifest.py
"""

import importlib
from typing import TYPE_CHECKING, Any

from dimred.data.base import Data
from dimred.data.npz import NPZ
from dimred.data.sets import CIFAR10, CIFAR100, MNIST, SVHN, Digits, FashionMNIST

if TYPE_CHECKING:
    from dimred.data.folder import Caltech101, TinyImageNet, imagefolder
    from dimred.data.sources import huggingface, webdataset
    from dimred.data.tokens import Brackets, Text

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "NPZ",
    "SVHN",
    "Brackets",
    "Caltech101",
    "Data",
    "Digits",
    "FashionMNIST",
    "Text",
    "TinyImageNet",
    "huggingface",
    "imagefolder",
    "webdataset",
]

#: where others are defined
LATER = {
    "Brackets": "tokens",
    "Text": "tokens",
    "Caltech101": "folder",
    "TinyImageNet": "folder",
    "huggingface": "sources",
    "imagefolder": "folder",
    "webdataset": "sources",
}


def __getattr__(name: str) -> Any:
    """Encoded images where they are first used: other data sets need no Pillow and no torchvision,
    which are slow to import."""
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"dimred.data.{LATER[name]}"), name)
