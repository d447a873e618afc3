"""The FLOPs of one training step.

net/product_flops.py measures the products of the dense model, forward and backward. The functions
here reduce them to the entries that are nonzero (forward) or trained (backward) and add them up.
flops.py sums the steps of a run."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from dimred.net.product_flops import Trace, Use


@dataclass(frozen=True)
class Pass:
    """FLOPs of a training step: for one example, and (`making` the weights) for the batch."""

    forward: int
    backward: int  # with gradients of the trained weights
    dense_backward: int  # with gradients of all weights
    making: int


class Products(NamedTuple):
    """The products that use the same entries of a weight, with their FLOPs if all entries are
    nonzero."""

    use: Use | None
    forward: int
    through: int  # gradients of the other operands
    own: int  # gradients of the entries


class Layout(NamedTuple):
    """The products of a step: those for every example, and those of weights alone, for the
    batch."""

    example: list[Products]
    batch: list[Products]
    examples: int  # the number of examples that `example` was counted for


class Entries:
    """The entries of a weight that count: their number and, computed only when needed, their
    mask."""

    def __init__(self, size: int, count: int, mask: Callable[[], Tensor]) -> None:
        self.size, self.count, self._mask = size, count, mask
        self._made: Tensor | None = None

    def of(self, flops: int, use: Use) -> int:
        """The FLOPs of a use if only these entries count."""
        # in proportion to the count: a mask is needed only where a part of the weight is used
        if use.where is None or self.count in (0, self.size):
            return flops * self.count // self.size
        if self._made is None:
            self._made = self._mask().reshape(-1)
        return flops // use.entries * int(self._made.as_strided(*use.where).count_nonzero())


#: no weight is sparse, and every weight that can train does
ALL: Mapping[str, Entries] = {}


def nonzero(value: Tensor) -> Entries:
    return Entries(value.numel(), int(value.count_nonzero()), lambda: value != 0)


def grouped(seen: Trace) -> Layout:
    """The products of a trace, grouped by the entries that they use."""
    sums: dict[tuple[bool, Use | None], list[int]] = {(True, None): [0, 0, 0]}
    rest = seen.backward_flops
    for each in seen.products:
        through, own = each.flops * each.other_trains, each.flops * each.weight_trains
        known = sums.setdefault((each.activations, each.use), [0, 0, 0])
        known[:] = known[0] + each.flops, known[1] + through, known[2] + own
        rest -= through + own
    sums[True, None][1] += rest  # kernels with gradients other than these two products
    example = [Products(use, *three) for (activations, use), three in sums.items() if activations]
    batch = [Products(use, *three) for (activations, use), three in sums.items() if not activations]
    return Layout(example, batch, seen.examples)


def add_up(
    layout: Layout,
    active: Mapping[str, Entries],
    trained: Mapping[str, Entries],
    covered: Container[str] = (),
) -> Pass:
    """The FLOPs of a step that multiplies only the `active` entries and takes gradients only of the
    `trained` ones. Weights that are not named count whole."""
    example, batch = (_sum(parts, active, trained, covered) for parts in layout[:2])
    forward, through, own, dense = (flops // layout.examples for flops in example)
    return Pass(forward, through + own, through + dense, batch.forward + batch.through + batch.own)


def forward_of(layout: Layout, active: Mapping[str, Entries]) -> int:
    """FLOPs of a forward pass of one example."""
    example, batch = (_sum(parts, active, ALL, ()) for parts in layout[:2])
    return example.forward // layout.examples + batch.forward


class Sum(NamedTuple):
    forward: int
    through: int
    own: int
    dense: int  # as own, with the gradients of all covered weights


def _sum(
    parts: Iterable[Products],
    active: Mapping[str, Entries],
    trained: Mapping[str, Entries],
    covered: Container[str],
) -> Sum:
    forward = through = own = dense = 0
    for part in parts:
        name = part.use.name if part.use else ""
        forward += _left(part.forward, part.use, active)
        through += _left(part.through, part.use, active)
        own += _left(part.own, part.use, trained)
        dense += part.forward if name in covered else part.own
    return Sum(forward, through, own, dense)


def _left(flops: int, use: Use | None, entries: Mapping[str, Entries]) -> int:
    return entries[use.name].of(flops, use) if use and use.name in entries else flops
