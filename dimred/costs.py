"""What a run costs, in floating-point operations.

The convention: a multiplication and an addition are two, and only those of convolutions and matrix products count, not
norms, activations, biases and the optimiser. A weight that is zero is not multiplied, one that is not trained takes no
gradient. So a layer whose output has S positions for an example (of a Linear, 1) costs

    forward          2 S nonzero(E(theta))
    backward         2 S nonzero(E(theta)), the gradient of its input, where that is needed: something before it trains
                     2 S dim(psi), the gradient of its weight; 2 S D where it is taken densely: for a map E or a basis,
                     or because the method asked for it

(Evci et al., ICML 2020, arXiv:1911.11134, app. H, who set both parts of the backward pass to the forward one's.) Making
E(theta), where that takes products (a projection, a filter basis) or as many sums (`flops` of a map says so), counts
once a step, and what a method does besides
training (scoring) counts as it is executed, densely, by the formulas of torch.utils.flop_counter. Evaluation is free.
In training, a weight that trains counts even while it is zero, as those that have just been grown are; at inference it
does not. What a map or a basis makes zero is looked at when supports change and at the end of every epoch, of a basis
one step later, too: as it begins, filters are as sparse as their coefficients.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dimred.net import Net

LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


class Executed(TorchDispatchMode):
    """Counts the FLOPs of what is executed within."""

    def __init__(self) -> None:
        super().__init__()
        self.total, self.on = 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out

    @contextmanager
    def set(self, on: bool) -> Iterator[bool]:
        """Counting within, or not; whether it did before."""
        before = self.on
        self._turn(on)
        try:
            yield before
        finally:
            self._turn(before)

    def _turn(self, on: bool) -> None:
        if on != self.on:
            self.on = on
            _ = self.__enter__() if on else self.__exit__(None, None, None)


@dataclass(frozen=True)
class Pass:
    """FLOPs of a training step: for an example, and (`making` the weights) for the batch."""
    forward: int
    backward: int           # with gradients of the trained weights
    dense_backward: int     # with gradients of all weights
    making: int


class Costs:
    """Counts what training `net` costs, on images of `shape`.

    steps, scoring: FLOPs so far; of training steps and of what else a method did. dense_step, dense_forward: of one
    example if all of the model is trained, as it is when this is made; what the others are compared with.
    """

    def __init__(self, net: Net, shape: Sequence[int]) -> None:
        self.net, self.shape = net, tuple(shape)
        self.steps, self.executed = 0, Executed()
        names = {id(p): name for name, p in net.model.named_parameters()}
        self._layers = [(m, names[id(m.weight)]) for m in net.model.modules() if isinstance(m, LAYERS)]
        self._sizes = {name: p.numel() for name, p in net.model.named_parameters()}
        self._needed: dict[tuple[str, ...], Mapping[int, bool]] = {}
        self._positions: dict[int, int] = {}        # of the layers' outputs, for one example
        everything = self._inputs_that_train()
        self.dense_forward = sum(2 * self._positions[i] * self._sizes[name] for i, (_, name) in enumerate(self._layers))
        self.dense_step = 2 * self.dense_forward + sum(
            2 * self._positions[i] * self._sizes[name] for i, (_, name) in enumerate(self._layers) if everything[i])
        self._now: tuple[int, Pass] | None = None
        self._seen: int | None = None       # the version of the net in the last step

    @property
    def scoring(self) -> int:
        return self.executed.total

    def step(self, examples: int, dense_grad: bool) -> None:
        """A training step begins, with the net as it is."""
        if self._now is None or self._now[0] != self.net.version:
            self._now = self.net.version, self._pass()
        now = self._now[1]
        self.steps += now.making + examples * (now.forward + (now.dense_backward if dense_grad else now.backward))
        if self.net.bases and self._seen != self.net.version:
            self._now = None
        self._seen = self.net.version

    def look_again(self) -> None:
        """Maps and bases may have changed what is zero."""
        if self.net.maps or self.net.bases:
            self._now = None

    def inference(self) -> int:
        """FLOPs of the network as it is, for one example."""
        nonzero = {name: int(value.count_nonzero()) for name, value in self.net.values().items()}
        return sum(2 * self._positions[i] * nonzero.get(name, self._sizes[name])
                   for i, (_, name) in enumerate(self._layers))

    def state(self) -> dict[str, Any]:
        """For a checkpoint, as JSON."""
        now = self._now and (self._now[0], *astuple(self._now[1]))
        return {"steps": self.steps, "scoring": self.scoring, "now": now, "seen": self._seen}

    def load(self, state: Mapping[str, Any]) -> None:
        self.steps, self.executed.total = state["steps"], state["scoring"]
        self._now = state["now"] and (state["now"][0], Pass(*state["now"][1:]))
        self._seen = state.get("seen")

    # -- one step --------------------
    def _pass(self) -> Pass:
        net, trains = self.net, set(self._trained())
        with torch.no_grad():
            nonzero = {name: int(net._value(name, w.theta()).count_nonzero()) if name in net.maps or name in net.bases
                       or w.base != "zero" else w.dim for name, w in net.weights.items()}
        made = {name for name in net.weights if name in net.maps or name in net.bases}
        whole = {name for name in made if name in net.bases or [*net.maps[name].parameters()]}  # feel it all
        inputs = self._inputs_that_train()
        forward = through = own = dense = 0
        for i, (_, name) in enumerate(self._layers):
            each, size = 2 * self._positions[i], self._sizes[name]
            forward += each * nonzero.get(name, size)
            through += each * nonzero.get(name, size) * inputs[i]
            if name in trains:
                own += each * (size if name in whole or name not in net.weights else net.weights[name].dim)
            if name in trains or name in net.weights:
                dense += each * size
        return Pass(forward, through + own, through + dense, self._making() if made else 0)

    def _trained(self) -> tuple[str, ...]:
        """The parameters of the model that train, be it through a map or a basis."""
        net = self.net
        parts = {name: [w.psi] * bool(w.dim) for name, w in net.weights.items()}
        for each in (net.maps, net.bases):
            for name, part in each.items():
                parts[name] = [*parts[name], *part.parameters()]
        return tuple(name for name in self._sizes
                     if any(p.requires_grad for p in parts.get(name, [net.rest[name]] if name in net.rest else [])))

    def _inputs_that_train(self) -> Mapping[int, bool]:
        """Whether the gradient of each layer's input is needed, as autograd has it for one example."""
        key = self._trained()
        if key not in self._needed:
            needed: dict[int, bool] = {}
            hooks = [m.register_forward_hook(lambda m, given, out, i=i: self._note(needed, i, m, given[0], out))
                     for i, (m, _) in enumerate(self._layers)]
            training = self.net.model.training
            self.net.train(False)
            self._positions = dict.fromkeys(range(len(self._layers)), 0)
            first = next(iter(self.net.model.parameters()))
            with torch.enable_grad(), self.executed.set(False), self.net.live():
                self.net.model(first.new_zeros(1, *self.shape))
            self.net.train(training)
            for hook in hooks:
                hook.remove()
            self._needed[key] = {i: needed.get(i, False) for i in range(len(self._layers))}
        return self._needed[key]

    def _note(self, needed: dict[int, bool], i: int, layer: nn.Module, given: Tensor, out: Tensor) -> None:
        transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
        width = layer.in_channels if transposed else \
            layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        self._positions[i] += (given if transposed else out).numel() // int(width)  # type: ignore[arg-type]
        needed[i] = needed.get(i, False) or given.requires_grad

    def _making(self) -> int:
        """FLOPs of writing E(theta) and of taking its gradient back, once."""
        counter = Executed()
        told = {name: each.flops() for name, each in self.net.maps.items()      # type: ignore[operator]
                if hasattr(each, "flops") and name not in self.net.bases}       # a basis is executed with its map
        with torch.enable_grad(), self.executed.set(False), counter.set(True):
            made = [self.net._value(name, w.theta()) for name, w in self.net.weights.items() if name not in told]
            wanted = [p for p in (self.net.map_parameters() | self.net.basis_parameters()
                                  | {name: w.psi for name, w in self.net.weights.items()}).values() if p.requires_grad]
            taken = [value.sum() for value in made if value.requires_grad]
            if taken:
                torch.autograd.grad(torch.stack(taken).sum(), wanted, allow_unused=True)
        return counter.total + sum(told.values())
