"""One training on several processes, compared with the same on one.

The net has norms and no dropout, whose draws differ between processes; with sync_batchnorm the two
trainings are the same function, up to the rounding of sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dimred.conformance.make import Make
from dimred.conformance.observe import WatchedNet, run
from dimred.conformance.toy import NETS, RECIPE
from dimred.errors import UserError
from dimred.net.coordinates import Coordinates
from dimred.training.group import Group
from dimred.training.loop import Train
from dimred.training.observers import Observer

#: those without dropout come first
KINDS = ("residual", "mlp", "attention", *NETS)
#: the largest relative difference of losses
TOLERANCE = 1e-3


class Losses(Observer):
    """The losses of a training, as metrics.jsonl has them."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def after_evaluation(self, train: Train, line: Mapping[str, Any]) -> None:
        self.values += [line["train_loss"], line["val_loss"]]


@dataclass(frozen=True)
class Comparison:
    """A training on several processes, and the same on one.

    kind: of the toy net. common: the fraction of trained weights that both have at the end
    loss: the largest relative difference of a loss. weight: the largest difference of a weight
    sent, dense: mean bytes that a step reduces, and bytes of all parameters
    """

    kind: str
    common: float
    loss: float
    weight: float
    sent: float
    dense: int

    @property
    def agrees(self) -> bool:
        return self.common == 1 and self.loss <= TOLERANCE


def compare(make: Make, kinds: Sequence[str] = KINDS, **how: Any) -> Comparison | None:
    """Train on all processes the first kind of net that the method accepts, then on the first
    process alone; what it finds. UserError if the processes disagree.

    how: more arguments of `run`"""
    ranks, losses, expected = Group(), Losses(), Losses()
    how = {"sync_batchnorm": True, **how}
    kind, net = trained(make, kinds, observers=[losses], ranks=ranks, **how)
    ranks.require_same_net(net)
    if not ranks.first:
        return None
    _, alone = trained(make, [kind], observers=[expected], **how)
    return Comparison(
        kind,
        common([*net.weights.values()], [*alone.weights.values()]),
        max(relative(*pair) for pair in zip(losses.values, expected.values, strict=True)),
        max(largest_difference(*pair) for pair in zip(tensors(net), tensors(alone), strict=True)),
        ranks.report(RECIPE)["reduced_bytes_per_step"],
        sum(p.nbytes for p in net.model.parameters()),
    )


def trained(make: Make, kinds: Sequence[str], **how: Any) -> tuple[str, WatchedNet]:
    """The first kind of net that the method accepts, and it, trained."""
    refusals = list[UserError]()
    for kind in kinds:
        try:
            return kind, run(make(), kind, make.basis(), **how)
        except UserError as error:
            refusals.append(error)
    raise refusals[0]


def common(some: list[Coordinates], others: list[Coordinates]) -> float:
    """The part of the weights trained in one net or the other that is trained in both."""
    pairs = [(a.trained(), b.trained()) for a, b in zip(some, others, strict=True)]
    both = sum(int((a & b).sum()) for a, b in pairs)
    either = sum(int((a | b).sum()) for a, b in pairs)
    return both / either if either else 1.0


def tensors(net: WatchedNet) -> list[Tensor]:
    return [value.detach() for value in net.effective_weights().values()]


def largest_difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def relative(one: float, other: float) -> float:
    return abs(one - other) / max(abs(other), 1e-3)
