"""An exponential moving average of what is trained, evaluated besides the weights themselves.

After every step, average <- decay * average + (1 - decay) * value: of psi, uncovered parameters and
the parameters of transforms, and of the running statistics of norms. So it has the size of what is
trained. It follows changes of coordinates as the optimiser's state does: an entry that leaves has
no average, and one that joins starts at its value. Where a weight gets another transform, or loses
it (merged at the end of a method), its coordinates mean something else, and its average starts
again. So do all averages where training is rewound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dimred.net import Net
from dimred.net.buffers import moving_buffers
from dimred.net.coordinates import Support
from dimred.net.state import State
from dimred.net.transforms import Transform
from dimred.training.evaluate import Best
from dimred.training.seen import Seen, same


class Entry(NamedTuple):
    """The average of one tensor, and what it belongs to."""

    tensor: Tensor
    average: Tensor
    support: Support = None
    transform: Transform | None = None


class Average:
    """The averages of a net, by the names of its parameters and buffers; nothing if decay is 0.

    best: the evaluation of the averages with the highest validation accuracy.
    """

    def __init__(self, net: Net, decay: float) -> None:
        self.net, self.decay, self.best = net, decay, Best()
        self._entries: dict[str, Entry] = {}
        self._seen, self._maps = Seen(net), list[Transform]()

    @torch.no_grad()
    def update(self) -> None:
        """After a step."""
        if self.decay:
            self._follow()
            averages = [entry.average for entry in self._entries.values()]
            values = [entry.tensor.detach() for entry in self._entries.values()]
            torch._foreach_lerp_(averages, values, 1 - self.decay)

    def restart(self) -> None:
        """Forget all averages and evaluations: the next step is of another network."""
        self._entries.clear()
        self._seen.forget()
        self.best.restart()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block, the net has the averages as its values."""
        with torch.no_grad():
            self._follow()
            entries = [*self._entries.values()]
            values = [entry.tensor.detach().clone() for entry in entries]
            for entry in entries:
                entry.tensor.copy_(entry.average)
        try:
            yield
        finally:
            with torch.no_grad():
                for entry, value in zip(entries, values, strict=True):
                    entry.tensor.copy_(value)

    def evaluated(
        self, step: int, evaluate: Callable[[str], tuple[float, float]]
    ) -> dict[str, float]:
        """Losses and accuracies of the averages, by their names in metrics.jsonl."""
        if not self.decay:
            return {}
        with self.in_place():
            line = self.best.update(step, self.net.dim, evaluate)
        return {f"ema_{name}": value for name, value in line.items()}

    # -- coordinates --------------------
    def _follow(self) -> None:
        """Bring the averages to the present coordinates."""
        maps = [*self.net.transforms.values()]
        if self._seen.is_same() and same(maps, self._maps):
            return
        self._seen.look()
        self._maps = maps
        now: dict[str, Entry] = {}
        for name, parameter in self.net.parameters().items():
            if parameter.requires_grad:
                now[name] = self._followed(name, parameter)
        for name, buffer in moving_buffers(self.net.model).items():
            before = self._entries.get(f"buffer/{name}")
            if before is None or before.tensor is not buffer:
                before = Entry(buffer, buffer.clone())
            now[f"buffer/{name}"] = before
        self._entries = now

    def _followed(self, name: str, parameter: nn.Parameter) -> Entry:
        before, w = self._entries.get(name), self.net.weights.get(name)
        if before and before.tensor is parameter and before.transform is self._transform(name):
            return before
        fresh = self._entry(name, parameter, parameter.detach().clone())
        if before and w and before.transform is fresh.transform:
            # two supports have only the dense positions in common
            dense, known = parameter.new_zeros(w.size), w.psi.new_zeros(w.size, dtype=torch.bool)
            at = slice(None) if before.support is None else before.support
            dense[at], known[at] = before.average, True
            fresh.average.copy_(torch.where(w.gather(known), w.gather(dense), fresh.average))
        return fresh

    def _entry(self, name: str, parameter: Tensor, average: Tensor) -> Entry:
        w = self.net.weights.get(name)
        return Entry(parameter, average, w.support if w else None, self._transform(name))

    def _transform(self, name: str) -> Transform | None:
        return self.net.transforms.get(name)

    # -- for checkpoints --------------------
    def state(self) -> State:
        return {name: entry.average.clone() for name, entry in self._entries.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Return to a state of the present coordinates."""
        parameters: dict[str, Tensor] = {**self.net.parameters()}
        for name, buffer in moving_buffers(self.net.model).items():
            parameters[f"buffer/{name}"] = buffer
        self._entries = {
            name: self._entry(name, parameters[name], value.to(parameters[name].device))
            for name, value in state.items()
        }
        self._seen.look()
        self._maps = [*self.net.transforms.values()]
