"""How the trained part of a network moves."""
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dimred.coordinates import Support
from dimred.net import Net
from dimred.state import State, below


class Exploration:
    """Which weights were trained first, and which ever. As long as nothing has moved it holds nothing of its own."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.first: dict[str, Support] = {}
        self.seen: dict[str, Tensor] = {}       # of each weight, flat (D); empty as long as the first is all
        self._version = -1

    def look(self) -> None:
        """At the net that is about to be trained."""
        if self._version == self.net.version:
            return
        self._version, now = self.net.version, self.net.supports
        if not self.first:
            self.first = now
        elif self.seen or any(now[name] is not support for name, support in self.first.items()):
            self.seen = self.seen or {name: self._mark(name, support) for name, support in self.first.items()}
            for name, support in now.items():
                self.seen[name][slice(None) if support is None else support] = True

    def _mark(self, name: str, support: Support) -> Tensor:
        marks = torch.zeros_like(self.net.weights[name].param, dtype=torch.bool).view(-1)
        marks[slice(None) if support is None else support] = True
        return marks

    def overlap(self) -> float:
        """Intersection over union of the first support and the present one; 1 if both are empty."""
        common = union = 0
        for name, w in self.net.weights.items():
            first = self.first.get(name)
            if first is w.support:      # all the same, be it everything
                shared = either = w.dim
            else:
                both, now = self._mark(name, first), w.trained()
                shared, either = int((both & now).sum()), int((both | now).sum())
            common, union = common + shared, union + either
        return common / union if union else 1.0

    def explored(self) -> float:
        """R_s, the share of the covered weights that were trained at some time.

        Liu, Yin, Mocanu, Pechenizkiy, ICML 2021 (arXiv:2102.02887), eq. 3."""
        seen = sum(int(marks.sum()) for marks in self.seen.values()) if self.seen else \
            sum(self.net.weights[name].size if s is None else len(s) for name, s in self.first.items())
        return seen / self.net.total

    def state(self) -> State:
        first = {f"first/{name}": support for name, support in self.first.items() if support is not None}
        return first | {f"seen/{name}": marks.clone() for name, marks in self.seen.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        first, device = below(state, "first/"), next(self.net.model.parameters()).device
        self.first = {name: first[name].to(device) if name in first else None for name in self.net.weights}
        self.seen = {name: marks.to(device) for name, marks in below(state, "seen/").items()}
        self._version = -1
