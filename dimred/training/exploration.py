"""The weights that were trained at some time, and the parameters trained in place of weights or
besides them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dimred.net import Net
from dimred.net.coordinates import Support
from dimred.net.state import State, below
from dimred.net.transforms import Transform


class Overlap(NamedTuple):
    """How many weights two supports have in common, and how many are in any of them."""

    common: int
    union: int

    @property
    def share(self) -> float:
        """Intersection over union; 1 if both are empty."""
        return self.common / self.union if self.union else 1.0


def all_together(overlaps: Iterable[Overlap]) -> Overlap:
    pairs = [*overlaps]
    return Overlap(sum(pair.common for pair in pairs), sum(pair.union for pair in pairs))


class Exploration:
    """Records the weights that were trained first, and those trained at some time. It takes no
    memory until the support changes.

    others: the number of parameters trained besides weights, by kind (scores, thresholds, ...); the
    maximum over time.
    in_place: the number of trained parameters of transforms over weights that do not train, such as
    scores of a supermask: these parameters determine the weights.
    """

    def __init__(self, net: Net) -> None:
        self.net = net
        self.first: dict[str, Support] = {}
        # marks of each weight, flat (D); empty as long as the first supports have not changed
        self.seen: dict[str, Tensor] = {}
        self.others: dict[str, int] = {}
        self.in_place = 0
        self._version, self._maps = -1, list[Transform]()

    def look(self) -> None:
        """Record the support of the net, before a training step."""
        maps = [*self.net.transforms.values()]
        # in most steps nothing has changed; this comparison is cheap
        if self._version == self.net.support_version and self._maps == maps:
            return
        self._version, self._maps, now = self.net.support_version, maps, self.net.supports
        self._count_others()
        if not self.first:
            self.first = now
        elif self.seen or any(now[name] is not support for name, support in self.first.items()):
            self.seen = self.seen or {
                name: self._mark(name, support) for name, support in self.first.items()
            }
            for name, support in now.items():
                self.seen[name][slice(None) if support is None else support] = True

    def _count_others(self) -> None:
        """Count the parameters of transforms and bases. Each parameter counts once, even if
        transforms share it."""
        now, known, self.in_place = dict[str, int](), set[int](), 0
        owners = [*self.net.transforms.items(), *self.net.bases.items()]
        for name, owner in owners:
            fresh = [p for p in owner.parameters() if p.requires_grad and id(p) not in known]
            count = sum(p.numel() for p in fresh)
            known |= {id(p) for p in fresh}
            if count:
                kind = owner.counted_as
                now[kind] = now.get(kind, 0) + count
            if owner is self.net.transforms.get(name) and self.net.weights[name].dim == 0:
                self.in_place += count
        self.others |= {kind: max(count, self.others.get(kind, 0)) for kind, count in now.items()}

    def _mark(self, name: str, support: Support) -> Tensor:
        marks = torch.zeros_like(self.net.weights[name].param, dtype=torch.bool).view(-1)
        marks[slice(None) if support is None else support] = True
        return marks

    def overlap(self) -> float:
        """Intersection over union of the first and the present support; 1 if both are empty."""
        return all_together(self.overlaps()).share

    def measures(self) -> dict[str, Any]:
        """For a line of metrics.jsonl."""
        overlaps = self.overlaps()
        return {
            "overlap": all_together(overlaps).share,
            "explored": self.explored(),
            # of each covered weight, in the order of `layers` in result.json
            "trained_by_layer": [w.dim for w in self.net.weights.values()],
            "overlap_by_layer": [round(overlap.share, 4) for overlap in overlaps],
        }

    def overlaps(self) -> list[Overlap]:
        """The first and the present support of each weight, in the order of the net."""
        found = []
        for name, w in self.net.weights.items():
            first = self.first.get(name)
            if first is w.support:  # the same support, or both None: all weights
                shared = either = w.dim
            else:
                both, now = self._mark(name, first), w.trained()
                shared, either = int((both & now).sum()), int((both | now).sum())
            found.append(Overlap(shared, either))
        return found

    def explored(self) -> float:
        """R_s, the share of the covered weights that were trained at some time.

        Liu, Yin, Mocanu, Pechenizkiy, ICML 2021 (arXiv:2102.02887), eq. 3."""
        return self.ever() / self.net.total

    def ever(self) -> int:
        """The number of weights that were trained at some time."""
        if self.seen:
            return sum(int(marks.sum()) for marks in self.seen.values())
        count = 0
        for name, support in self.first.items():
            count += self.net.weights[name].size if support is None else len(support)
        return count

    def to_the_end(self) -> int:
        """The number of weights that were trained at some time and are in the present support."""
        return sum(
            int((self._ever(name) & w.trained()).sum()) for name, w in self.net.weights.items()
        )

    def final(self) -> dict[str, int]:
        """The number of entries of each weight that the training determined: those that train, and
        those frozen at a value changed by training. Entries that were pruned or have returned to
        their initial value do not count. All numbers are 0 if no weight was ever trained, only
        scores."""
        if not self.ever():
            return dict.fromkeys(self.net.weights, 0)
        initial: Mapping[str, Tensor] = {}
        counts = {}
        for name, w in self.net.weights.items():
            counts[name] = w.dim
            if w.base == "held" and w.support is not None:
                initial, now = initial or self.net.initial(), w.dense()
                # a value made by training: neither pruned to zero nor back at its initial value
                moved = (now != 0) & (now != initial[name].to(now).view(-1))
                counts[name] += int((self._ever(name) & moved & ~w.trained()).sum())
        return counts

    def _ever(self, name: str) -> Tensor:
        """The entries of a weight that were trained at some time, flat (D)."""
        if self.seen:
            return self.seen[name]
        nothing = torch.empty(0, dtype=torch.int64, device=self.net.weights[name].param.device)
        return self._mark(name, self.first[name] if self.first else nothing)

    def state(self) -> State:
        first = {
            f"first/{name}": support for name, support in self.first.items() if support is not None
        }
        seen = {f"seen/{name}": marks.clone() for name, marks in self.seen.items()}
        others = {f"others/{kind}": torch.tensor(count) for kind, count in self.others.items()}
        return first | seen | others | {"in_place": torch.tensor(self.in_place)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        first, device = below(state, "first/"), next(self.net.model.parameters()).device
        self.first = dict.fromkeys(self.net.weights)  # None: all of it trained
        for name, support in first.items():
            self.first[name] = support.to(device)
        self.seen = {name: marks.to(device) for name, marks in below(state, "seen/").items()}
        self.others = {kind: int(count) for kind, count in below(state, "others/").items()}
        self.in_place = int(state.get("in_place", torch.tensor(0)))
        self._version = -1
