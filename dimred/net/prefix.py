"""The frozen prefix of a model: all that it computes before the first parameter that trains.

A model is an arbitrary program and cannot be cut into two. Instead, one of its modules, the
`entry`, gets a stored input. The modules called before it are skipped: they return tensors of the
right shapes on the device `meta`, which hold no values, and whatever the program computes between
these modules is computed on `meta`, too. That is right if the model then uses nothing but the
input of the entry, and if this input is the same in every step: longest_prefix.py tries both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from dimred.net.part import Compute, Part

if TYPE_CHECKING:
    from dimred.net.net import Net

Forwards = dict[nn.Module, Callable[..., Any]]


@dataclass(frozen=True, eq=False)
class Prefix(Part):
    """A prefix that ends where the model calls its module `entry`. The part of the model after it
    is computed.

    name: of the entry.
    position: the number of calls of modules that begin before this one.
    skipped: the modules called before, and what each returns, without values.
    images: the shape of an image.
    activation: an input of the entry, without values.
    tensors: the frozen parameters and buffers that it may depend on, by name.
    """

    name: str
    entry: nn.Module
    position: int
    skipped: Sequence[tuple[nn.Module, Any]]
    images: tuple[int, ...]
    activation: Tensor
    tensors: Mapping[str, Tensor]
    #: by the number of examples: the forward functions of skipped modules, and images
    _made: dict[int, tuple[Forwards, Tensor]] = field(default_factory=dict)

    def bytes_per_example(self) -> int:
        return self.activation[0].numel() * self.activation.element_size()

    def version(self) -> int:
        """Changes whenever one of its tensors does."""
        return sum(tensor._version for tensor in self.tensors.values())

    def activations(self, compute: Compute, inputs: Tensor) -> Tensor:
        """The input that the entry gets while compute(inputs) calls the model."""

        def stop(given: Tensor, *_: Any, **__: Any) -> None:
            raise _Reached(given)

        with _replaced({self.entry: stop}):
            try:
                compute(inputs)
            except _Reached as reached:
                return reached.given
        raise RuntimeError(f"the model does not call {self.name}")

    def thetas(self, net: Net) -> Mapping[str, Tensor] | None:
        if net.arithmetic or net.bases:  # weights that are used are not theta
            return None
        return {name: w.theta() for name, w in net.weights.items() if name not in self.tensors}

    def of(self, model: nn.Module) -> Compute:
        """The model as a function of the input of its entry."""

        def compute(activations: Tensor) -> Tensor:
            skips, images = self._stand_ins(len(activations))
            forward, meta = self.entry.forward, ExitStack()

            def enter(*_: Any, **__: Any) -> Any:
                meta.close()
                return forward(activations)

            with _replaced({**skips, self.entry: enter}), meta:
                meta.enter_context(_OnMeta())
                return model(images)

        return compute

    def _stand_ins(self, examples: int) -> tuple[Forwards, Tensor]:
        if examples not in self._made:
            skips: Forwards = {}
            for module, output in self.skipped:
                skips[module] = _returns(_of_size(examples, output))
            images = torch.empty(examples, *self.images, device="meta")
            self._made[examples] = skips, images
        return self._made[examples]


class _Reached(Exception):
    def __init__(self, given: Tensor) -> None:
        self.given = given


class _OnMeta(TorchFunctionMode):
    """Computes without values."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map_only(Tensor, without_values, (args, kwargs or {}))
        return function(*args, **kwargs)


def without_values(tensor: Tensor) -> Tensor:
    return tensor.to("meta")


def _of_size(examples: int, output: Any) -> Any:
    return tree_map_only(Tensor, lambda each: each.new_empty(examples, *each.shape[1:]), output)


def _returns(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


@contextmanager
def _replaced(forwards: Forwards) -> Iterator[None]:
    """Modules with other `forward` functions, which hide those of their classes."""
    before = [(vars(module), vars(module).get("forward")) for module in forwards]
    try:
        for module, forward in forwards.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for own, hidden in before:
            if hidden is None:
                del own["forward"]
            else:
                own["forward"] = hidden
