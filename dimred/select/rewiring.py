"""Drop and grow: how many weights, and which, dynamic sparse training exchanges."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dimred.net import Net
from dimred.net.coordinates import Supports
from dimred.scores import Scores, generator
from dimred.select.topk import largest, union


def drop_counts(net: Net, fraction: float, rounded: Callable[[float], int] = int) -> dict[str, int]:
    """The number of weights of each layer to drop: this fraction, rounded down or by math.ceil, but
    never all. Dense layers drop none: they have no room to grow."""
    counts = dict.fromkeys(net.weights, 0)
    for name, w in net.weights.items():
        if w.support is not None:
            counts[name] = max(0, min(rounded(fraction * w.dim), w.dim - 1))
    return counts


def gradient_magnitude(net: Net) -> dict[str, Tensor]:
    """|dL/dtheta| of all covered weights, trained or not."""
    return {name: grad.abs() for name, grad in net.grads().items()}


def drop_and_regrow(net: Net, kept: Supports, counts: Mapping[str, int]) -> None:
    """Drop the weights that are not kept, then grow random ones. The two steps are separate so that
    a weight that is dropped and drawn again starts at zero, like every grown weight."""
    net.keep(kept)
    net.keep(grow_random(net, kept, counts))


def drop(net: Net, scores: Scores, counts: Mapping[str, int]) -> Supports:
    """The present supports without the `counts` lowest scores of each layer. Among equal scores the
    last positions are dropped."""
    out = {}
    for name, count in counts.items():
        w = net.weights[name]
        kept = largest(w.gather(scores[name].reshape(-1)), w.dim - count)
        out[name] = kept if w.support is None else w.support[kept]
    return out


def grow(supports: Supports, scores: Scores, counts: Mapping[str, int]) -> Supports:
    """The supports, and the `counts` highest scores outside them, in each layer."""
    out: dict[str, Tensor | None] = {}
    for name, count in counts.items():
        support = supports[name]
        if support is None:
            out[name] = None
            continue
        candidates = scores[name].reshape(-1).clone()
        candidates[support] = -torch.inf
        out[name] = union(len(candidates), support, largest(candidates, count))
    return out


def grow_random(
    net: Net, supports: Supports, counts: Mapping[str, int], purpose: str = ""
) -> Supports:
    """The supports, and `counts` random positions outside them, in each layer. One number is drawn
    for each chosen position, not for each candidate."""
    draws = generator(net, purpose)
    out: dict[str, Tensor | None] = {}
    for name, support in supports.items():
        if support is None or not counts[name]:
            out[name] = support
            continue
        size = net.weights[name].size
        chosen = _distinct(size - len(support), counts[name], draws).to(support.device)
        # before support[i] there are support[i] - i free positions: this gives the number of taken
        # positions before the r-th free one
        taken = torch.searchsorted(
            support - torch.arange(len(support), device=support.device), chosen, right=True
        )
        out[name] = union(size, support, chosen + taken)
    return out


def _distinct(n: int, k: int, draws: torch.Generator) -> Tensor:
    """k different numbers below n, uniformly distributed: duplicates are drawn again."""
    # among more than half of the numbers, duplicates would be drawn too often
    if 2 * k > n:
        return torch.randperm(n, generator=draws)[:k]
    chosen = torch.randint(n, (k,), generator=draws).unique()
    while len(chosen) < k:
        chosen = torch.cat((chosen, torch.randint(n, (k - len(chosen),), generator=draws))).unique()
    return chosen
