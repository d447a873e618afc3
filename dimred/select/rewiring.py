"""How sparse training exchanges weights: how many, which are dropped, which grow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dimred.net import Net
from dimred.net.coordinates import Supports
from dimred.scores import Scores, generator
from dimred.select.topk import _union, largest


def drop_counts(net: Net, fraction: float, rounded: Callable[[float], int] = int) -> dict[str, int]:
    """This fraction of the trained weights of each layer, rounded down or by math.ceil, but never
    the last one; none of a full layer, which has nowhere to grow."""
    dims = {name: w.dim if w.support is not None else 0 for name, w in net.weights.items()}
    return {name: max(0, min(rounded(fraction * dim), dim - 1)) for name, dim in dims.items()}


def gradient_magnitude(net: Net) -> dict[str, Tensor]:
    """|dL/dtheta|, trained or not."""
    return {name: grad.abs() for name, grad in net.grads().items()}


def drop_and_regrow(net: Net, kept: Supports, counts: Mapping[str, int]) -> None:
    """Drop what is not kept, and grow at random. In two steps: what is drawn again starts at zero
    like any other."""
    net.keep(kept)
    net.keep(grow_random(net, kept, counts))


def drop(net: Net, scores: Scores, counts: Mapping[str, int]) -> Supports:
    """The present supports without the `counts` of each that score lowest (among equals the last
    positions go)."""
    out = {}
    for name, count in counts.items():
        w = net.weights[name]
        kept = largest(w.gather(scores[name].reshape(-1)), w.dim - count)
        out[name] = kept if w.support is None else w.support[kept]
    return out


def grow(supports: Supports, scores: Scores, counts: Mapping[str, int]) -> Supports:
    """The supports and, of what lies outside them, the `counts` of each that score highest."""
    out: dict[str, Tensor | None] = {}
    for name, count in counts.items():
        support = supports[name]
        if support is None:
            out[name] = None
            continue
        candidates = scores[name].reshape(-1).clone()
        candidates[support] = -torch.inf
        out[name] = _union(len(candidates), support, largest(candidates, count))
    return out


def grow_random(
    net: Net, supports: Supports, counts: Mapping[str, int], purpose: str = ""
) -> Supports:
    """The supports and, of what lies outside them, `counts` of each drawn at random. A number is
    drawn for each that is chosen, not for each that could be."""
    draws = generator(net, purpose)
    out: dict[str, Tensor | None] = {}
    for name, support in supports.items():
        if support is None or not counts[name]:
            out[name] = support
            continue
        size = net.weights[name].size
        chosen = _distinct(size - len(support), counts[name], draws).to(support.device)
        # before support[i] there are support[i] - i free places, so the r-th free place has as many
        # taken before it:
        taken = torch.searchsorted(
            support - torch.arange(len(support), device=support.device), chosen, right=True
        )
        out[name] = _union(size, support, chosen + taken)
    return out


def _distinct(n: int, k: int, draws: torch.Generator) -> Tensor:
    """k different numbers below n, any k of them alike: what was drawn twice is drawn again."""
    if 2 * k > n:
        return torch.randperm(n, generator=draws)[:k]
    chosen = torch.randint(n, (k,), generator=draws).unique()
    while len(chosen) < k:
        chosen = torch.cat((chosen, torch.randint(n, (k - len(chosen),), generator=draws))).unique()
    return chosen
