"""Memory-economic sparse training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dimred.errors import require
from dimred.fields import Fraction, Period, UnitInterval
from dimred.methods.random_start import RandomStart
from dimred.net import Net
from dimred.scores import Scores
from dimred.select.rewiring import drop, drop_and_regrow
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class MEST(RandomStart):
    """Memory-economic sparse training: drop weights by magnitude and gradient and grow random ones,
    fewer in each stage.

        score = |theta| + lambda |dL/dtheta|;
        density d: prune to (1 - f) d, grow to d (elastic mutation)
                                               or prune to d, grow to (1 + f) d and train these
                                               (soft memory bound)

    f falls in stages and is 0 in the last one, so that d weights remain. No dense gradient is
    needed. The paper's sparsities for a target of 0.9 are 0.92, 0.91, 0.90 (f = 0.2, 0.1) and with
    the soft bound 0.85, 0.875, 0.90 (f = 0.5, 0.25), with an update every 5 of 160 epochs. lambda
    is from memory (the official scripts leave it at 0).

    Trains: d weights or somewhat more or fewer, not always the same; stores: their positions;
    needs: nothing.

    Yuan et al., NeurIPS 2021 (arXiv:2110.14032).
    """

    update_every: Period = 0.03125  # steps, or a fraction of training
    # f, one for each stage of training but the last
    drop_fractions: tuple[Fraction, ...] = (0.2, 0.1)
    # the ends of the stages, as fractions of training
    stage_ends: tuple[UnitInterval, ...] = (0.5625, 0.75)
    soft_memory_bound: bool = False  # EM&S
    gradient_weight: float = 0.01  # lambda, of the gradient in the score

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.drop_fractions) == len(self.stage_ends) > 0,
            "method.drop_fractions, method.stage_ends",
            (self.drop_fractions, self.stage_ends),
            "as many of one as of the other",
        )
        require(
            sorted(self.stage_ends) == [*self.stage_ends],
            "method.stage_ends",
            self.stage_ends,
            "rising fractions of training in [0, 1)",
        )

    def bounds(self, progress: float) -> tuple[float, float]:
        """The multiples of the final density to prune to, and to grow to."""
        f = (*self.drop_fractions, 0.0)[sum(progress >= moment for moment in self.stage_ends)]
        return (1.0, 1.0 + f) if self.soft_memory_bound else (1.0 - f, 1.0)

    def run(self, net: Net, train: Train) -> None:
        self.keep_random(net)
        base = {name: w.dim for name, w in net.weights.items()}
        # with the soft memory bound, training starts with the larger number of weights
        self.mutate(net, base, 1.0, self.bounds(0.0)[1])
        due = train.every(self.update_every, self.stage_ends[-1])
        # the last update returns to exactly the final density, wherever the period falls
        last = min(math.ceil(self.stage_ends[-1] * len(train)), len(train) - 1)
        for t in train.steps():
            if due(t) or t == last:
                self.mutate(net, base, *self.bounds(1.0 if t == last else t / len(train)))

    def mutate(self, net: Net, base: Mapping[str, int], low: float, high: float) -> None:
        """Prune each layer to `low` times its base count, then grow to `high` times."""
        sizes = {name: net.weights[name].size for name in base}
        lows = {name: round(low * n) for name, n in base.items()}
        lows |= {name: n for name, n in base.items() if n == sizes[name]}  # dense layers stay dense
        counts = {name: max(0, net.weights[name].dim - n) for name, n in lows.items()}
        more = {name: min(sizes[name], round(high * n)) - lows[name] for name, n in base.items()}
        if any(counts.values()) or any(more.values()):
            drop_and_regrow(net, drop(net, self.scores(net), counts), more)

    def scores(self, net: Net) -> Scores:
        """|theta| + lambda |dL/dtheta| of the trained weights; |theta| before the first
        gradient."""
        out = {}
        for name, w in net.weights.items():
            score = w.psi.detach().abs()
            if w.psi.grad is not None:
                score = score + self.gradient_weight * w.psi.grad.abs()
            out[name] = w.scatter(score)
        return out
