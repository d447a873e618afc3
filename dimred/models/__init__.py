"""Networks to train: plain modules built from the image shape (C, H, W) and the number of
classes."""

from typing import Any

from dimred.models.lenets import lenet, lenet5, lenet300, mlp
from dimred.models.mobilenets import mobilenet
from dimred.models.resnets import resnet, resnet18
from dimred.models.vggs import convnet, vgg
from dimred.models.vits import vit
from dimred.models.wide_resnets import wide_resnet

__all__ = [
    "convnet",
    "lenet",
    "lenet5",
    "lenet300",
    "mlp",
    "mobilenet",
    "resnet",
    "resnet18",
    "torchvision",
    "vgg",
    "vit",
    "wide_resnet",
]


def __getattr__(name: str) -> Any:
    """`torchvision` where it is first used: most runs need none of it, and it is slow to import."""
    if name == "torchvision":
        from dimred.models.zoo import torchvision

        return torchvision
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
