"""Helpers of all builders: initial weights, and checks of image size, depth and width."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from dimred.errors import UserError, first_line, nearest
from dimred.models.pretrained import load, read

INITS: dict[str, Callable[[Tensor], Tensor]] = {
    "kaiming_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),  # fan-in, gain sqrt(2)
    "kaiming_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "xavier_normal": nn.init.xavier_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
}
TORCH_DEFAULT = "torch_default"


def initialise(model: nn.Module, init: str) -> None:
    """Draw all Conv and Linear weights by `init` and set biases to zero; `torch_default` keeps
    PyTorch's own initial values."""
    if init == TORCH_DEFAULT:
        return
    if init not in INITS:
        raise UserError(
            f"Unknown model.init={init!r}. {nearest(str(init), [*INITS, TORCH_DEFAULT])}"
        )
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            INITS[init](module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def prepare(
    model: nn.Module,
    init: str,
    pretrained: str | None,
    adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> nn.Module:
    """Give `model` its initial weights: drawn by `init`, or read from the file `pretrained`.

    adapt: converts the state dict of the file to the model's names and shapes"""
    # Drawn in either case: a file may lack the classifier, which then keeps its initial values.
    initialise(model, init)
    if pretrained is not None:
        state = read(pretrained, model)
        load(model, adapt(state) if adapt else state, str(pretrained))
    return model


Build = Callable[[Mapping[str, Any]], nn.Module]  # with these options in place of the given ones


def require_options(name: str, options: Mapping[str, Any], build: Build, error: Exception) -> None:
    """UserError if a library could not build its model because of the values of its options."""
    if wrong := at_fault(options, build):
        raise UserError(
            f"{name} cannot be built with {' and '.join(wrong)} ({type(error).__name__}: "
            f"{first_line(error)}). Choose another value, or leave it out"
        ) from error


def at_fault(options: Mapping[str, Any], build: Build) -> list[str]:
    """Which options keep a model from being built, as OPTION=VALUE: the one without which it is
    built, or all of them if none is alone. Empty if the options are not the cause."""

    def is_built(chosen: Mapping[str, Any]) -> bool:
        try:
            build(chosen)
        except Exception:  # whatever the library raises
            return False
        return True

    if is_built(options) or not is_built({}):
        return []
    named = [f"model.options.{key}={value}" for key, value in options.items()]
    for i, key in enumerate(options):
        if is_built({other: options[other] for other in options if other != key}):
            return [named[i]]
    return named


def not_in_place(model: nn.Module) -> nn.Module:
    """Scores may need the activations that an in-place ReLU would overwrite."""
    for module in model.modules():
        if "inplace" in vars(module):
            vars(module)["inplace"] = False
    return model


def require_size(name: str, shape: Sequence[int], smallest: int) -> None:
    """UserError unless images of `shape` (C, H, W) have at least `smallest` pixels each way."""
    _, height, width = shape
    if min(height, width) < smallest:
        raise UserError(
            f"{name} needs images of at least {smallest}x{smallest} pixels, got {height}x{width}. "
            f"Set dataset.resize={smallest} or larger, or choose a model with less pooling, "
            f"such as model=resnet20 or model=lenet300."
        )


def require_depth(name: str, depth: int, allowed: Collection[int], rule: str) -> None:
    """UserError unless the architecture `name` exists with this depth."""
    if depth not in allowed:
        raise UserError(f"{name} has no depth {depth}. Set model.depth to {rule}.")


def scaled(channels: int, width: float) -> int:
    """The number of channels at a width multiplier, at least one."""
    if width <= 0:
        raise UserError(
            f"model.width={width} leaves no channels. Set it to a number above 0, such as 1."
        )
    return max(1, round(channels * width))
