"""What every builder shares: the starting weights, and saying no to images that are too small."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

from torch import Tensor, nn

from dimred.errors import UserError, nearest
from dimred.models.pretrained import load, read

INITS: dict[str, Callable[[Tensor], Tensor]] = {
    "kaiming_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),  # fan-in, gain sqrt(2)
    "kaiming_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "xavier_normal": nn.init.xavier_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
}
TORCH_DEFAULT = "torch_default"


def initialise(model: nn.Module, init: str) -> None:
    """Draw every Conv and Linear weight by `init` and zero the biases; `torch_default` leaves what
    the modules drew."""
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


def prepare(model: nn.Module, init: str, pretrained: str | None) -> nn.Module:
    """Give `model` its starting weights: drawn by `init`, or read from the file `pretrained`."""
    initialise(model, init)
    if pretrained is not None:
        load(model, read(pretrained, model), str(pretrained))
    return model


def require_size(name: str, shape: Sequence[int], smallest: int) -> None:
    """Raise unless the images of `shape` (C, H, W) are at least `smallest` pixels high and wide."""
    _, height, width = shape
    if min(height, width) < smallest:
        raise UserError(
            f"{name} needs images of at least {smallest}x{smallest} pixels, got {height}x{width}. "
            f"Set dataset.resize={smallest} or larger, or choose a model with less pooling, "
            f"such as model=resnet20 or model=lenet300."
        )


def require_depth(name: str, depth: int, allowed: Collection[int], rule: str) -> None:
    """Raise unless `depth` is one that the architecture `name` has."""
    if depth not in allowed:
        raise UserError(f"{name} has no depth {depth}. Set model.depth to {rule}.")


def scaled(channels: int, width: float) -> int:
    """`channels` times the width multiplier, at least one."""
    if width <= 0:
        raise UserError(
            f"model.width={width} leaves no channels. Set it to a number above 0, such as 1."
        )
    return max(1, round(channels * width))
