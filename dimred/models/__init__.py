"""Networks to train: plain modules built from the image shape (C, H, W) and the number of
classes."""

from importlib import import_module
from typing import Any

from dimred.models.lenets import lenet, lenet5, lenet300, mlp
from dimred.models.mobilenets import mobilenet
from dimred.models.resnets import resnet, resnet18
from dimred.models.texts import text_transformer
from dimred.models.vggs import convnet, vgg
from dimred.models.vits import vit
from dimred.models.wide_resnets import wide_resnet

__all__ = [
    "convnet",
    "huggingface",
    "lenet",
    "lenet5",
    "lenet300",
    "mlp",
    "mobilenet",
    "resnet",
    "resnet18",
    "text_transformer",
    "timm",
    "torchvision",
    "vgg",
    "vit",
    "wide_resnet",
]


#: builders of other packages' models: most runs need none of them, and they are slow to import
ELSEWHERE = {"torchvision": "zoo", "timm": "zoo_timm", "huggingface": "zoo_huggingface"}


def __getattr__(name: str) -> Any:
    """The builders that are imported where they are first used."""
    if name in ELSEWHERE:
        return getattr(import_module(f"dimred.models.{ELSEWHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
