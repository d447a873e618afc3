"""COPS: maximise one score under constraints on others."""

from __future__ import annotations

from dataclasses import dataclass

from dimred.errors import require
from dimred.fields import Count, Fraction
from dimred.methods.pruning_at_init.base import Scored
from dimred.net import Net
from dimred.scores import NAMED, Named, Scores, combined
from dimred.select.topk import topk
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class COPS(Scored):
    """Prune at initialisation by one score, under constraints on others.

        max_m <m, S_1>  subject to  <m, S_j> >= level_j * max_m' <m', S_j>  for j = 2, 3, ...,
        |m| = d

    The linear program is solved through its dual (the dual, and levels relative to the best
    attainable value, are derived: the text of the paper was not at hand). Scores: snip, grasp,
    crop, synflow (one-shot), magnitude, lamp, random.

    Trains: d weights; stores: their positions; needs: what its scores need, once.

    Wimmer, Mehnert, Condurache, 2021 (arXiv:2107.12673).
    """

    maximise: Named = "snip"
    subject_to: tuple[Named, ...] = ("synflow",)
    levels: tuple[Fraction, ...] = (0.9,)
    examples: Count = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.levels) == len(self.subject_to) > 0,
            "method.levels",
            self.levels,
            "one number for each score of method.subject_to",
        )

    def scores(self, net: Net, train: Train) -> Scores:
        batch = train.sample(self.examples, self.augment)
        budget = self.allocation(net, 1 - self.sparsity)
        names = (self.maximise, *self.subject_to)
        scores = [NAMED[name](net, batch) for name in train.rounds(names, "scoring")]
        return combined(scores, self.levels, lambda score: topk(score, budget))
