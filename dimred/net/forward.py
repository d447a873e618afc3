"""How weights reach the model.

The modules hold their weights in dictionaries of parameters. For the time of a forward pass the
entries of covered weights are replaced by the tensors to compute with, which autograd follows back.
`torch.func.functional_call` does the same at 20 us a weight, 4 % of a step of LeNet-300-100; this
takes 1 us.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from dimred.net.batchnorm import applies_to, exact_statistics
from dimred.net.outputs import logits_in

Slot = tuple[dict[str, Any], str]  # a dictionary of parameters, and the key in it


class Forward:
    """Lets a model compute with other weights than its parameters."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.compiled: nn.Module | None = None
        # found at the first forward pass
        self._slots: dict[str, list[Slot]] | None = None
        self._batchnorms: list[nn.BatchNorm2d] | None = None
        # whether the model returns more than its logits, in training and in evaluation mode
        self._wraps: dict[bool, bool] = {}
        # whether it calls functions that depend on the layout of activations, in these modes
        self._layout_matters: dict[bool, bool] = {}

    def compile(self, backend: str = "inductor", retained: bool = False) -> None:
        """Compile the model. Weights are written outside of it, so supports may change freely.

        retained: whether a backward pass may retain its graph. By default, compiled code may write
        to the tensors that are saved for it, and PyTorch refuses to retain them."""
        if retained:
            from torch._functorch import config

            config.donated_buffer = False
        # torch.compile asks theta, where it expects a parameter, for its .grad, and warns that a
        # tensor that is not a leaf has none
        warnings.filterwarnings(
            "ignore", message="The .grad attribute of a Tensor that is not a leaf"
        )
        self.compiled = cast(nn.Module, torch.compile(self.model, backend=backend))

    @contextmanager
    def with_weights(
        self,
        values: Mapping[str, Tensor],
        channels_last: bool = False,
        sparse: Mapping[str, Tensor] | None = None,
    ) -> Iterator[nn.Module]:
        """The model, computing with these tensors in place of its parameters of these names.
        sparse: those that have no values in a layout (see sparse.py)."""
        if channels_last:
            values = {name: in_channels_last(value) for name, value in values.items()}
        norms = self._norms() if channels_last else ()
        values = {**values, **(sparse or {})}
        replaced = [
            (slots, key, slots[key], value)
            for name, value in values.items()
            for slots, key in self._slots_of(name)
        ]
        try:
            for slots, key, _, value in replaced:
                slots[key] = value
            with (
                exact_statistics(norms),
                self._batch_innermost(bool(sparse), channels_last),
                self._logits_alone() as model,
            ):
                yield model
        finally:
            for slots, key, parameter, _ in replaced:
                slots[key] = parameter

    @contextmanager
    def _batch_innermost(self, sparse: bool, channels_last: bool) -> Iterator[None]:
        """The layout of activations between sparse products, if there are any. The first pass in
        each mode finds out whether the model calls functions that depend on it: looking at each
        call takes 7 % of a step of LeNet-300-100."""
        if not sparse or self._layout_matters.get(self.model.training) is False:
            yield
            return
        from dimred.net.layouts import BatchInnermost  # imports what dense runs do not need

        with BatchInnermost(channels_last) as found:
            yield
        if found.called:
            known = self._layout_matters.get(self.model.training, False)
            self._layout_matters[self.model.training] = known or found.matters

    @contextmanager
    def _logits_alone(self) -> Iterator[nn.Module]:
        """The model, which returns its logits alone within the block. The first call in each mode
        finds out whether it does so anyway."""
        model = self.compiled or self.model
        if self._wraps.get(self.model.training) is False:
            yield model
            return

        def hook(_: nn.Module, given: Any, output: Any) -> Any:
            logits = logits_in(output)
            self._wraps[self.model.training] = logits is not output
            return logits

        handle = model.register_forward_hook(hook)
        try:
            yield model
        finally:
            handle.remove()

    def _slots_of(self, name: str) -> list[Slot]:
        """Where the modules hold a parameter: several places if it is tied."""
        if self._slots is None:
            by_id: dict[int, list[Slot]] = {}
            for module in self.model.modules():
                for key, parameter in module._parameters.items():
                    by_id.setdefault(id(parameter), []).append((module._parameters, key))
            self._slots = {n: by_id[id(p)] for n, p in self.model.named_parameters()}
        return self._slots[name]

    def _norms(self) -> list[nn.BatchNorm2d]:
        """The norms whose statistics are computed exactly in channels_last (see batchnorm.py). A
        compiled model has kernels of its own."""
        if self._batchnorms is None:
            self._batchnorms = [module for module in self.model.modules() if applies_to(module)]
        return [] if self.compiled else self._batchnorms


def in_channels_last(value: Tensor) -> Tensor:
    # `to` sets the strides even where there is one channel
    return value.to(memory_format=torch.channels_last) if value.dim() == 4 else value
