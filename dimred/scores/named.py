"""Scores by name, for methods that let the user choose one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from dimred.net import Net
from dimred.scores.basic import Batch, Scores, lamp, magnitude, random_scores, snip
from dimred.scores.second_order import grasp
from dimred.scores.synflow import synflow

Named = Literal["snip", "grasp", "crop", "synflow", "magnitude", "lamp", "random"]


def _crop(net: Net, batch: Batch) -> Scores:
    return {name: score.abs() for name, score in grasp(net, batch, 1.0).items()}


def _synflow(net: Net, batch: Batch) -> Scores:
    return synflow(net, batch[0].shape[1:], net.supports)


NAMED: dict[Named, Callable[[Net, Batch], Scores]] = {
    "snip": snip,
    "grasp": grasp,
    "crop": _crop,
    "synflow": _synflow,
    "magnitude": lambda net, _: magnitude(net),
    "lamp": lambda net, _: lamp(net),
    "random": lambda net, _: random_scores(net),
}
