"""Coupled channels, found by tracing a model: a convolution or a Linear layer creates new channels,
an addition couples the channels of its operands, a norm passes channels on, and a Linear layer
after flattening uses each channel in several columns. Channels of images are in dimension 1, those
of tokens in the last one; heads of attention are channels, too, where the model divides a dimension
with -1 for their number: `unflatten(-1, (3, -1, dim))`.

A function without a rule (rules.py) is safe: channels that it uses are never removed.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dimred.channels.identities import FIXED
from dimred.channels.rules import RULES
from dimred.channels.trace import Trace, tensors_in
from dimred.net.outputs import logits_in


def traced(model: nn.Module, images: Tensor) -> Trace:
    """Run a model on two inputs of the shape of these, and follow its channels."""
    twin = copy.deepcopy(model).eval()
    trace = Trace(tensors_of(twin))
    tracer = Tracer(trace)
    images = next(twin.parameters()).new_zeros(2, *images.shape[1:])
    trace.follow(images, FIXED)
    with torch.no_grad(), tracer:
        logits = logits_in(twin(images))
    for tensor in tensors_in(logits):
        trace.stay((trace.of(tensor) or FIXED).ids)
    for name in tracer.elsewhere:
        trace.stay(trace.rows.get(name))
        trace.stay(trace.columns.get(name))
    return trace


class Tracer(TorchFunctionMode):
    """Applies the rules to every function that runs.

    elsewhere: parameters that functions without a rule use
    """

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace, self.elsewhere = trace, set[str]()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        made, read = [*tensors_in(out)], [*tensors_in((args, kwargs))]
        if not made and out is not None:  # it returns shapes or numbers
            return out
        trace = self.trace
        trace.function = function
        rule = RULES.get(getattr(function, "__name__", "").strip("_"))
        found = rule(trace, out, *args, **kwargs) if rule else None
        if found is None:
            self._stay(read)
        for tensor in made:
            if found is not None or any(trace.of(t) is not None for t in read):
                trace.follow(tensor, found or FIXED)
        return out

    def _stay(self, tensors: list[Tensor]) -> None:
        """What a function without a rule uses keeps its shape, so its channels stay."""
        for tensor in tensors:
            self.trace.stay((self.trace.of(tensor) or FIXED).ids)
            if name := self.trace.name(tensor):
                self.elsewhere.add(name)


def tensors_of(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]
