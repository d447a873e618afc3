"""COPS: the best mask by one score, under constraints on others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dimred.errors import UserError
from dimred.net.coordinates import Supports
from dimred.scores.basic import Scores, masked

Best = Callable[[Tensor], Tensor]  # the best mask (flat, bool) of a flat score


def combined(
    scores: Sequence[Scores], levels: Sequence[float], choose: Callable[[Scores], Supports]
) -> Scores:
    """A score with this best mask m (chosen by `choose`): m has the largest <m, S_1> of all masks
    with <m, S_j> >= C_j, up to one swap for each constraint. C_j is the level, a fraction, times
    the largest <m, S_j> of any mask. UserError if no mask meets all constraints.

    Wimmer, Mehnert, Condurache, 2021 (arXiv:2107.12673). The dual of the relaxed linear program is
    the minimum over lambda >= 0 of max_m <m, S_1> + sum_j lambda_j (<m, S_j> - C_j) (derived: the
    text of the paper was not at hand)."""
    like = {name: score.shape for name, score in scores[0].items()}
    sizes = [shape.numel() for shape in like.values()]

    def named(flat: Tensor) -> dict[str, Tensor]:
        return {
            name: part.view(like[name]) for name, part in zip(like, flat.split(sizes), strict=True)
        }

    def best(flat: Tensor) -> Tensor:
        supports = choose(named(flat))
        ones = masked(named(torch.ones_like(flat)), supports)
        return torch.cat([part.view(-1) for part in ones.values()]) > 0

    # scores differ by orders of magnitude; normalised, their multipliers are comparable
    flat = [_normalised(torch.cat([score[name].reshape(-1) for name in like])) for score in scores]
    tops = [float(score[best(score)].sum()) for score in flat[1:]]
    # the absolute value, because the best attainable sum may be negative: a level below 1 has to
    # allow less, not demand more
    wanted = [top - (1 - level) * abs(top) for top, level in zip(tops, levels, strict=True)]
    if len(wanted) == 1:
        return named(_bisected(flat[0], flat[1], wanted[0], best))
    return named(
        _centred(flat[0], torch.stack(flat[1:]), torch.tensor(wanted, dtype=torch.float64), best)
    )


def _normalised(score: Tensor) -> Tensor:
    """The score in float64, scaled so that its absolute values sum to one."""
    score = score.double()
    return score / score.abs().sum().clamp_min(torch.finfo(torch.float64).tiny)


def _bisected(first: Tensor, other: Tensor, wanted: float, best: Best) -> Tensor:
    """(1 - mu) S_1 + mu S_2 with the smallest mu that meets the constraint. Bisection finds it,
    since <m, S_2> does not decrease as mu grows."""

    def attains(mu: float) -> bool:
        return float(other[best(mixed(mu))].sum()) >= wanted - 1e-12

    def mixed(mu: float) -> Tensor:
        return (1 - mu) * first + mu * other

    low, high = 0.0, 1.0
    if attains(low):
        return first
    # until no other float64 lies between the bounds
    while low < (middle := (low + high) / 2) < high and high - low > 1e-15:
        low, high = (low, middle) if attains(middle) else (middle, high)
    return mixed(high)


def _centred(first: Tensor, others: Tensor, wanted: Tensor, best: Best) -> Tensor:
    """The combined score for several constraints, by the ellipsoid method. The dual is convex, and
    the surplus of a mask over the constraints is its subgradient. Each round cuts an ellipsoid
    around the minimum through its centre."""
    n = len(others)
    center, shape = (
        torch.full((n,), 1.0, dtype=torch.float64),
        1e8 * torch.eye(n, dtype=torch.float64),
    )
    # lambda, the surplus of its mask over the levels, <m, S_1>
    tried: list[tuple[Tensor, Tensor, float]] = []
    lowest, at = torch.inf, center
    for _ in range(120 * n * n):
        if (center < 0).any():
            # the minimum has lambda >= 0: cut off the part of the ellipsoid with negative
            # coordinates
            cut = -(center < 0).double()
        else:
            mask = best(first + center.to(others) @ others)
            surplus, value = others[:, mask].sum(1).cpu() - wanted, float(first[mask].sum())
            tried.append((center, surplus, value))
            dual = value + float(center @ surplus)
            if dual < -1 - 1e-9:  # the dual is an upper bound of <m, S_1>, which is never below -1
                raise UserError(
                    f"no mask meets all levels of the {n} constraints together. Lower method.levels"
                )
            if dual < lowest:
                lowest, at = dual, center
            cut = surplus
        length = float((cut @ shape @ cut).sqrt())
        # the ellipsoid is too thin for another cut
        if length < 1e-13:
            break
        # the smallest ellipsoid around the half that contains the minimum
        step = shape @ cut / length
        center = center - step / (n + 1)
        shape = n * n / (n * n - 1) * (shape - 2 / (n + 1) * torch.outer(step, step))
    # an exact penalty: above the multipliers, so that no violation of a constraint pays off
    weight = 2 * at + 1
    chosen = max(tried, key=lambda t: t[2] + float((weight * t[1].clamp(max=0)).sum()))
    return first + chosen[0].to(others) @ others
