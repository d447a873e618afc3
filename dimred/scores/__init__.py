"""Scores of weights: functions of the net and, for most, of a batch, with one value for every
covered weight.

Scoring has no side effects: the net, BatchNorm statistics and random states do not change. Scores
of trained weights alone are -inf at all others, so that these rank last."""

from dimred.scores.basic import (
    Batch,
    Scores,
    Thetas,
    generator,
    gradients,
    lamp,
    magnitude,
    masked,
    permuted,
    random_scores,
    snip,
    trained_only,
    untouched,
)
from dimred.scores.cops import combined
from dimred.scores.named import NAMED, Named
from dimred.scores.ntk import kernel_product, ntk_sap, transfer
from dimred.scores.phew import phew
from dimred.scores.second_order import balanced, gradient_flow, grasp, halves_by_class, prospr
from dimred.scores.synflow import synflow

__all__ = [
    "NAMED",
    "Batch",
    "Named",
    "Scores",
    "Thetas",
    "balanced",
    "combined",
    "generator",
    "gradient_flow",
    "gradients",
    "grasp",
    "halves_by_class",
    "kernel_product",
    "lamp",
    "magnitude",
    "masked",
    "ntk_sap",
    "permuted",
    "phew",
    "prospr",
    "random_scores",
    "snip",
    "synflow",
    "trained_only",
    "transfer",
    "untouched",
]
