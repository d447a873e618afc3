"""Dense gradients on demand: of every entry of a weight, trained or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from dimred.errors import UserError
from dimred.net.coordinates import Coordinates


class DenseGradients:
    """Collects the dense gradients of backward passes while `kept` is on. They take D numbers a
    weight; otherwise only psi has a gradient, of d numbers."""

    def __init__(self, weights: Mapping[str, Coordinates]) -> None:
        self.weights = weights
        #: the sums so far, by weight
        self.sums: dict[str, Tensor] | None = None

    @property
    def kept(self) -> bool:
        return self.sums is not None

    def keep(self, on: bool) -> None:
        """Collect the gradients of the next backward passes, or stop."""
        self.sums = {} if on else None
        for name, w in self.weights.items():
            # where all of a weight trains, its psi.grad is dense already
            partly = self.sums is not None and w.support is not None
            w.hook = _add_to(self.sums, name) if self.sums is not None and partly else None

    def replace(self, sums: Mapping[str, Tensor]) -> None:
        """Let these be the sums, where they are kept."""
        if self.sums is not None:
            self.sums.clear()
            self.sums.update(sums)

    def of_all(self) -> dict[str, Tensor]:
        if self.sums is None:
            raise UserError(
                "dense gradients were not kept in this step: "
                "ask for them by train.steps(dense_grad=...)"
            )
        out = {}
        for name, w in self.weights.items():
            grad = w.psi.grad if w.support is None else self.sums[name]
            assert grad is not None, name
            out[name] = grad.view(w.param.shape)
        return out


def _add_to(sums: dict[str, Tensor], name: str) -> Callable[[Tensor], None]:
    def add(grad: Tensor) -> None:
        sums[name] = sums[name] + grad if name in sums else grad.contiguous()

    return add
