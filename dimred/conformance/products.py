"""Whether sparse products are used where they can be, and compute the same."""

from __future__ import annotations

import torch

from dimred.net import State
from dimred.net.sparse import SparseArithmetic
from dimred.training.loop import Train
from dimred.training.observers import Observer


class Products(Observer):
    """Follows a training with recipe.arithmetic=sparse.

    used: weights that had a sparse product in some step.
    missed: weights whose product was dense in some step, although their coordinates allow a sparse
    one. Those with a reason, such as convolutions without a compiler, do not count.
    """

    def __init__(self) -> None:
        self.used, self.missed = set[str](), set[str]()
        self._in_step = set[str]()

    def before_step(self, train: Train, step: int) -> None:
        self._in_step = set[str]()
        sparse_arithmetic(train).watch = lambda product: self._in_step.add(product.layer.name)

    def after_backward(self, train: Train, step: int) -> None:
        net, sparse = train.net, sparse_arithmetic(train)
        self.used |= self._in_step
        dense = {*net.transforms, *net.bases, *sparse.refused}
        for name, w in net.weights.items():
            some_train = w.support is not None and w.dim > 0
            if some_train and w.base == "zero" and name not in dense | self._in_step:
                self.missed.add(name)


def sparse_arithmetic(train: Train) -> SparseArithmetic:
    assert train.arithmetic.sparse, "recipe.arithmetic is not sparse"
    return train.arithmetic.sparse


def relative_difference(state: State, expected: State) -> tuple[str, float]:
    """The tensor that differs most, relative to its largest value, and by how much."""
    sizes = {"": 0.0}
    for name, value in expected.items():
        if value.is_floating_point() and value.numel():
            apart = (state[name] - value).abs().max() / value.abs().max().clamp(min=1e-30)
            sizes[name] = apart.nan_to_num(torch.inf).item()
    name = max(sizes, key=lambda each: sizes[each])
    return name, sizes[name]
