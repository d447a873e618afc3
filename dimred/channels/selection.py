"""The channels of a model that structured pruning can remove, and their selection.

Removing a channel removes the filters that create it, their biases and norms, and the columns of
every weight that uses it. Channels joined by addition or multiplication are coupled and removed
together. The channels of images and of logits cannot be removed, nor can channels used by a
function without a rule in tracing.py.

No remaining weight uses a removed channel, so none of its parameters has an effect, not even the
shift of its norm. `without_channels` (smaller.py) removes them from the model without changing the
logits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from dimred.channels.identities import STAYS, DisjointSet
from dimred.channels.tracing import traced
from dimred.errors import UserError
from dimred.net import Net
from dimred.net.coordinates import Supports
from dimred.net.layers import matching
from dimred.scores import Scores

#: the unit that a density is a fraction of
Unit = Literal["weights", "channels"]


class Channels:
    """The channels of a net that can be removed, numbered from 0 to count - 1 in the order of
    computation.

    filters: for each Conv or Linear weight that creates removable channels, the channel of each row
    (dimension 0).
    columns: for each weight that uses removable channels, the channel of each column (dimension 1).
    scales: for each norm's scale, the channel of each entry.
    rows: the same for filters, biases, norms and their statistics.

    images: any number of them; only their shape matters.
    skip: regular expressions, searched in the names of weights; the filters of these weights are
    not removed. UserError if one matches nothing."""

    def __init__(self, net: Net, images: Tensor, skip: Iterable[str] = ()) -> None:
        seen = traced(net.model, images)
        for name in matching(skip, seen.filters, "method.skip", "layer with filters"):
            seen.stay(seen.rows[name])
        # weights that are not covered cannot be pruned
        for name in {*seen.filters, *seen.columns} - net.weights.keys():
            seen.stay(seen.rows.get(name))
            seen.stay(seen.columns.get(name))
        numbers, self.count = seen.numbers()
        if not self.count:
            raise UserError(
                f"{type(net.model).__name__} has no channel that can be removed: it needs a Conv "
                "or Linear layer whose outputs another one uses, with only channel-wise functions "
                "in between. Choose a model that has some, such as model=vgg11 or "
                "model=lenet300, or skip less, or include and exclude that cover both weights"
            )
        self.net, self.device = net, next(net.model.parameters()).device

        def numbered(names: Iterable[str], ids: dict[str, Tensor]) -> dict[str, Tensor]:
            found = {name: numbers[ids[name]].to(self.device) for name in names}
            return {name: number for name, number in found.items() if (number != STAYS).any()}

        self.filters, self.scales = (
            numbered(seen.filters, seen.rows),
            numbered(seen.scales, seen.rows),
        )
        self.rows, self.columns = (
            numbered(seen.rows, seen.rows),
            numbered(seen.columns, seen.columns),
        )

    def require_scales(self, method: str) -> None:
        """UserError unless some of the channels have a norm with a scale."""
        if not self.scales:
            name = type(self.net.model).__name__
            raise UserError(
                f"method {method} needs norms with a scale for each channel, and {name} has none "
                "after channels that can be removed. Choose a model that has some, such as "
                "model=vgg11 or model=resnet20"
            )

    # -- the weights of channels --------------------
    def everything(self) -> Tensor:
        """All channels (count, bool)."""
        return torch.ones(self.count, dtype=torch.bool, device=self.device)

    def left(self, name: str, kept: Tensor) -> tuple[Tensor, Tensor]:
        """The rows and columns of a weight that remain with the channels `kept` (count, bool)."""
        # a bias or a norm's scale is one column
        shape = (*self.net.weights[name].param.shape, 1)[:2]
        rows, columns = (torch.ones(n, dtype=torch.bool, device=self.device) for n in shape)
        if name in self.rows:
            rows = (self.rows[name] == STAYS) | kept[self.rows[name]]
        if name in self.columns:
            columns = (self.columns[name] == STAYS) | kept[self.columns[name]]
        return rows, columns

    def supports(self, kept: Tensor) -> Supports:
        """The supports of the weights of the channels `kept` (count, bool), for net.keep."""
        supports = {}
        for name in [
            name for name in self.net.weights if name in self.rows or name in self.columns
        ]:
            w = self.net.weights[name]
            rows, columns = self.left(name, kept)
            left = (rows[:, None] & columns).repeat_interleave(w.size // (len(rows) * len(columns)))
            supports[name] = (left & w.trained()).nonzero().view(-1)
        return supports

    def keep(self, kept: Tensor) -> None:
        """Train only the weights of the channels `kept` (count, bool). Biases and norms of removed
        channels have no effect: their number is reported (`removed`), and they do not count as
        trained."""
        self.net.keep(self.supports(kept))
        removed = sum(
            int(((numbers != STAYS) & ~kept[numbers]).sum())
            for name, numbers in self.rows.items()
            if name in self.net.uncovered
        )
        self.net.reported["removed"] = removed

    def cost(self, kept: Tensor, unit: Unit) -> int:
        """The number of covered weights, or of channels, that remain."""
        if unit == "channels":
            return int(kept.sum())
        total = 0
        for name, w in self.net.weights.items():
            rows, columns = self.left(name, kept)
            total += int(rows.sum() * columns.sum()) * (w.size // (len(rows) * len(columns)))
        return total

    # -- scores of channels --------------------
    def sums(self, scores: Scores) -> Tensor:
        """The score of every channel (count): the sum over the filters that create it; -inf if none
        of these weights is trained."""
        total, trained = torch.zeros(2, self.count, device=self.device, dtype=torch.float64)
        for name, numbers in self.filters.items():
            # untrained weights have score -inf, which must not enter a sum
            alive = self.net.weights[name].trained().view(len(numbers), -1)
            score = scores[name].reshape(len(numbers), -1).double().masked_fill(~alive, 0.0).sum(1)
            made = numbers != STAYS
            # adds in the same order every time, which index_add_ on a GPU does not
            total.index_put_((numbers[made],), score[made], accumulate=True)
            trained.index_put_((numbers[made],), alive.sum(1).double()[made], accumulate=True)
        return total.masked_fill(trained == 0, -torch.inf)

    def mean_scale(self) -> Tensor:
        """The mean |gamma| of every channel (count) over its norms; inf for a channel without a
        scale, which is never removed."""
        total, scales = torch.zeros(2, self.count, dtype=torch.float64, device=self.device)
        for name, numbers in self.scales.items():
            free = numbers != STAYS
            scale = self.scale(name).abs().double()[free]
            total.index_put_((numbers[free],), scale, accumulate=True)
            scales.index_put_((numbers[free],), torch.ones_like(scale), accumulate=True)
        return torch.where(scales > 0, total / scales.clamp(min=1), torch.inf)

    def scale(self, name: str) -> Tensor:
        """The scale of a norm, whether covered or not."""
        if name in self.net.uncovered:
            return self.net.uncovered[name].detach()
        return self.net.weights[name].dense()

    def add_l1_gradient(self, penalty: float) -> None:
        """Add the gradient of an L1 penalty to the gradient of every scale, at the pause of a
        step."""
        parameters = self.net.parameters()
        for gamma in (parameters[name] for name in self.scales):
            if gamma.grad is not None:
                gamma.grad.add_(gamma.detach().sign(), alpha=penalty)

    def within_layers(self, scores: Tensor) -> Tensor:
        """The rank of every channel within its layer (count), as a fraction: choosing the highest
        ranks chooses the same share of each layer."""
        ranks = torch.empty(self.count, dtype=torch.float64)
        for members in self.coupled_groups():
            order = members[scores.cpu()[members].argsort(descending=True, stable=True)]
            ranks[order] = 1 - (torch.arange(len(order), dtype=torch.float64) + 0.5) / len(order)
        return ranks.to(self.device).masked_fill(scores == -torch.inf, -torch.inf)

    def coupled_groups(self) -> list[Tensor]:
        """The channels of each layer, on the CPU; layers with coupled channels form one group."""
        groups = DisjointSet(self.count)
        for numbers in self.filters.values():
            made = numbers[numbers != STAYS].cpu()
            groups.join(made[:1].expand(len(made)), made)
        group = groups.roots()
        return [(group == each).nonzero().view(-1) for each in group.unique()]

    def shuffled(self, kept: Tensor, alive: Tensor, draws: torch.Generator) -> Tensor:
        """Random channels (count, bool) among those alive, as many in each layer as are kept."""
        ranks = torch.rand(self.count, generator=draws).masked_fill(~alive.cpu(), -1)
        chosen = torch.zeros(self.count, dtype=torch.bool)
        for members in self.coupled_groups():
            chosen[members[ranks[members].topk(int(kept.cpu()[members].sum())).indices]] = True
        return chosen.to(self.device)

    def best(self, scores: Tensor, density: float, unit: Unit) -> Tensor:
        """The channels (count, bool) with the highest scores, as many as fit into the fraction
        `density` of all covered weights, or of the channels; among equal scores the first are
        chosen. The best channel of every layer is always kept, and so is every channel with score
        inf. UserError if these alone do not fit."""
        first = (scores == torch.inf).double()
        for numbers in self.filters.values():
            if not (numbers == STAYS).any():
                first[numbers[scores[numbers].argmax()]] = 1
        order = scores.argsort(descending=True, stable=True)
        # channels that must stay come first; the stable sort keeps the order of scores otherwise
        order = order[first[order].argsort(descending=True, stable=True)]
        whole = self.net.total if unit == "weights" else self.count
        budget, kept = round(density * whole), self.everything().logical_not()

        # a weight remains where both its row and its column do, so the cost of one channel depends
        # on the other channels
        def cost(k: int) -> int:
            return self.cost(kept.index_fill(0, order[:k], True), unit)

        low, high = int(first.sum()), self.count + 1  # cost(low) fits, cost(high) does not
        if (least := cost(low)) > budget:
            # rounded down, so that the advised sparsity itself is possible
            most = math.floor(1e4 * (1 - least / whole)) / 1e4
            raise UserError(
                f"sparsity={1 - density:g} leaves {budget} of {whole} {unit}, but one channel of "
                f"each layer and what cannot be removed are {least}. "
                f"Choose at most sparsity={most}"
            )
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if cost(middle) <= budget else (low, middle)
        return kept.index_fill(0, order[:low], True)

    # -- a smaller model --------------------
    def read(self, state: dict[str, Tensor]) -> Tensor:
        """The channels (count, bool) that affect the logits of the weights in `state`; the first
        channel of a layer without any."""
        # without a channel others may become unused, so repeat until nothing changes
        kept, before = self.everything(), None
        while before is None or not torch.equal(kept, before):
            before, reads = kept, torch.zeros(self.count, device=self.device)
            for name, numbers in self.columns.items():
                rows, _ = self.left(name, kept)
                used = state[name][rows].transpose(0, 1).reshape(len(numbers), -1).any(1)
                reads[numbers[used & (numbers != STAYS)]] = 1
            kept = before & reads.bool()
            for numbers in self.filters.values():
                if (numbers != STAYS).all() and not kept[numbers].any():
                    # a layer cannot be empty; this channel has no effect
                    kept[numbers[0]] = True
        return kept
