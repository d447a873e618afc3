"""Transforms between theta, the coordinates of a weight, and the weight that the model uses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from dimred.net.coordinates import Coordinates, Support


class Transform(nn.Module):
    """E: the model computes with E(theta). It may have parameters (scores, thresholds, a filter
    basis), which train with theta, and buffers; both are saved with the net.

    A method adds transforms and merges them in the end (`Net.add_transforms`,
    `Net.merge_transforms`). A basis is a transform that stays: it has an `inverse`, and theta are
    the coefficients of the weight (`Net.add_bases`).
    """

    #: what its parameters are called where results count them
    counted_as = "other parameters"
    #: whether a weight at zero has no gradient, so that it never trains
    zero_gradient_at_zero = False

    def forward(self, theta: Tensor) -> Tensor:
        raise NotImplementedError

    def inverse(self, weight: Tensor) -> Tensor:
        """The theta that makes this weight. A basis needs it."""
        raise NotImplementedError

    def penalty(self, theta: Tensor) -> Tensor | float:
        """What it adds to the loss."""
        return 0.0

    def flops(self) -> int | None:
        """FLOPs of forward and backward, if they are not those of its matrix products."""
        return None

    @property
    def has_penalty(self) -> bool:
        """False where `penalty` is the default: then no step computes theta for it."""
        return type(self).penalty is not Transform.penalty


class Transforms(dict[str, Transform]):
    """Transforms by the names of their weights. Several weights may share one, or a parameter."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind  # the prefix of its parameters' names

    def add(self, transforms: Mapping[str, Transform]) -> list[nn.Parameter]:
        """Add these, and return the parameters that are new."""
        known = {id(p) for p in self.parameters().values()}
        self |= transforms
        return [p for p in self.parameters().values() if id(p) not in known]

    def parameters(self) -> dict[str, nn.Parameter]:
        """Each once, under the name of the first weight that has it."""
        named: dict[int, tuple[str, nn.Parameter]] = {}
        # backwards, so that the first weight's name is the last to be written
        for name, each in reversed(self.items()):
            for key, p in each.named_parameters():
                named[id(p)] = f"{self.kind}:{name}.{key}", p
        return dict(named.values())

    def apply(self, name: str, theta: Tensor) -> Tensor:
        """E(theta) of a weight; theta itself where it has no transform."""
        return self[name](theta) if name in self else theta

    def evaluated(self, weights: Mapping[str, Coordinates]) -> dict[str, Tensor]:
        """E(theta) of the weights that have a transform, in evaluation mode."""
        return {name: each.eval()(weights[name].theta()) for name, each in self.items()}

    def train_with(self, weights: Mapping[str, Coordinates]) -> None:
        """Train the parameters of a transform as long as one of its weights trains."""
        for each in dict.fromkeys(self.values()):
            trains = any(weights[name].dim for name in self if self[name] is each)
            for p in each.parameters():
                p.requires_grad_(trains)
                if not trains:
                    p.grad = None

    def train(self, mode: bool) -> None:
        for each in self.values():
            each.train(mode)

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        for each in self.values():
            each.to(device=device, dtype=dtype)

    def state(self) -> dict[str, Tensor]:
        out = {}
        for name, each in self.items():
            for key, value in each.state_dict().items():
                out[f"{self.kind}/{name}/{key}"] = value.detach().clone()
        return out

    def load(self, state: Mapping[str, Tensor], complete: bool = True) -> None:
        """Return to a `state`. Unless it is complete, transforms without entries stay as they
        are: it may be from before they were added."""
        for name, each in self.items():
            prefix = f"{self.kind}/{name}/"
            own = {
                key.removeprefix(prefix): value
                for key, value in state.items()
                if key.startswith(prefix)
            }
            if own or complete:
                each.load_state_dict(own)


def coefficients(
    initial: Callable[[], Mapping[str, Tensor]], bases: Mapping[str, Transform]
) -> Callable[[], dict[str, Tensor]]:
    """Initial values with the coefficients of weights in their bases."""
    # bases train, but initial coefficients are those in the bases of the beginning
    first = copy.deepcopy(dict(bases))
    for basis in first.values():
        basis.requires_grad_(False)

    def in_bases() -> dict[str, Tensor]:
        values = dict(initial())
        return values | {name: basis.inverse(values[name]) for name, basis in first.items()}

    return in_bases


# -- transforms that more than one method needs --------------------
def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The value of `hard`, to the bit, with the gradient of `soft`."""
    return hard.detach() + (soft - soft.detach())


class Masked(Transform):
    """theta at `kept`, and zero elsewhere, where theta has no gradient either."""

    kept: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", torch.ones_like(weight, dtype=torch.bool, requires_grad=False))

    @torch.no_grad()
    def keep(self, support: Support) -> None:
        self.kept.zero_().view(-1)[slice(None) if support is None else support] = True

    def support(self) -> Tensor:
        """The positions at which the mask is one."""
        return self.kept.view(-1).nonzero().view(-1)

    def forward(self, theta: Tensor) -> Tensor:
        return theta * self.kept


class StraightThroughMask(Masked):
    """theta at `kept`, and zero elsewhere; all of theta has the gradient taken there."""

    def forward(self, theta: Tensor) -> Tensor:
        return straight_through(theta * self.kept, theta)


class ScoredMask(Masked):
    """theta at `kept`, and zero elsewhere. Every weight has a score, whose gradient dL/dE * theta
    is that of the mask."""

    counted_as = "scores"

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self.score = nn.Parameter(torch.zeros_like(weight, requires_grad=False))

    def forward(self, theta: Tensor) -> Tensor:
        return theta * straight_through(self.kept.to(theta.dtype), self.score)
