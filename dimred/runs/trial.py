"""Tries one batch before any work, so that a model or a data set that does not fit is reported in
one sentence.

Models may return their logits with other things (net/outputs.py). `give_logits` makes such a model
return the logits alone wherever it is called, exported programs included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dimred.data.base import Data, require_examples
from dimred.errors import UserError, counted, see
from dimred.net import Net
from dimred.net.outputs import logits_in
from dimred.runs.failures import is_of_the_machine
from dimred.scores.basic import untouched

Shape = tuple[int, ...]
FITS = "It has to return one logit for each class, (batch, classes)"
PAGE = see("extending.md#a-model")


def give_logits(model: nn.Module, shape: Shape, classes: int, name: str) -> None:
    """Try a model that `name` has built, in evaluation and in training mode, and let it return its
    logits alone. UserError if it cannot compute on images (N, *shape), or gives no logits
    (N, classes or more)."""
    images = torch.zeros(2, *shape)
    for training in (False, True):
        with untouched(model), in_mode(model, training), explained(name, images, 2):
            output = model(images)
        hooked = only_logits in model._forward_hooks.values()
        if not isinstance(output, Tensor) and not hooked:
            model.register_forward_hook(only_logits)
            output = logits_in(output)
        require_logits(output, classes, name)


def try_batch(net: Net, data: Data, batch_size: int) -> None:
    """Try a net on its data, as training will: UserError if the data's batches are not what they
    have to be, or if the net cannot compute on a batch of that size. Nothing changes."""
    require_examples(data.name, data.sizes)
    n = min(batch_size, 2, data.sizes["train"])
    images, labels = data.sample(n, 0)
    require_batch(images, labels, data, n)
    name = type(net.model).__name__
    with untouched(net.model), in_mode(net.model, True), explained(name, images, batch_size):
        net(images)


def require_logits(output: Any, classes: int, name: str) -> None:
    """UserError unless the output for two images is logits of so many classes, or more."""
    if not isinstance(output, Tensor):
        raise UserError(
            f"{name} makes a model that returns {in_words(output)}. {FITS}, or them "
            f"as `.logits`, as 'logits' of a dictionary or first in a tuple. {PAGE}"
        )
    if output.dim() != 2 or len(output) != 2:
        raise UserError(
            f"{name} makes a model that returns a tensor of shape "
            f"{tuple(output.shape)} for two images. {FITS}, here (2, {classes}). {PAGE}"
        )
    if output.shape[1] < classes:
        raise UserError(
            f"{name} makes a model of {counted(output.shape[1], 'output')}, but the data has "
            f"{counted(classes, 'class')}. {FITS}. {PAGE}"
        )


def require_batch(images: Tensor, labels: Tensor, data: Data, n: int) -> None:
    """UserError unless a batch is as `Data` specifies."""
    expected = (n, *data.shape)
    if images.dtype != torch.float32 or tuple(images.shape) != expected:
        raise UserError(
            f"{data.name} gives images of type {images.dtype} and shape "
            f"{tuple(images.shape)}; "
            f"they must be of type torch.float32 and shape {expected}, as its `shape` "
            "says"
        )
    if labels.dtype != torch.int64 or tuple(labels.shape) != (n,):
        raise UserError(
            f"{data.name} gives labels of type {labels.dtype} and shape "
            f"{tuple(labels.shape)}; they must be of type torch.int64 and shape ({n},)"
        )
    if not ((labels >= 0) & (labels < data.classes)).all():
        raise UserError(
            f"{data.name} gives the labels {labels.tolist()}; with {data.classes} "
            f"classes, 0 to {data.classes - 1} are allowed"
        )


# -- logits --------------------
def only_logits(model: nn.Module, images: Any, output: Any) -> Any:
    """A forward hook."""
    return logits_in(output)


def inputs_in_words(inputs: Tensor) -> tuple[str, str]:
    """What the inputs of a model are, and what to do if it cannot compute on them."""
    size = "x".join(map(str, inputs.shape[1:]))
    if inputs.dim() != 4:
        return f"inputs of {size} numbers", "Choose a model for such inputs"
    return (
        f"images of {size} (channels x height x width)",
        "Choose a model for such images, or scale or convert them (dataset.resize; of image "
        "folders dataset.channels)",
    )


def in_words(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"a dictionary with the keys {', '.join(map(repr, output)) or '(none)'}"
    return "None" if output is None else f"a {type(output).__name__}"


# -- the trial --------------------
@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """The model in training or evaluation mode, without gradients; every module gets its own mode
    back."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def explained(name: str, images: Tensor, batch_size: int) -> Iterator[None]:
    """Turn any error of the model into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_of_the_machine(error):
            raise
        of_what, advice = inputs_in_words(images)
        why = (str(error).splitlines() or [""])[0]
        if "more than 1 value per channel" in why and batch_size == 1:
            raise UserError(
                "recipe.batch_size=1 is too small for this model: its BatchNorm needs "
                "two examples or more to normalise. Choose a larger batch"
            ) from error
        raise UserError(
            f"{name} cannot compute on {of_what}: {type(error).__name__}: {why}. {advice}"
        ) from error
