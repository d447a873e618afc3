"""Networks to train: plain modules built from the image shape (C, H, W) and the number of
classes."""

from dimred.models.lenets import lenet, lenet5, lenet300, mlp
from dimred.models.mobilenets import mobilenet
from dimred.models.resnets import resnet, resnet18
from dimred.models.vggs import convnet, vgg
from dimred.models.vits import vit
from dimred.models.wide_resnets import wide_resnet
from dimred.models.zoo import torchvision

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
