"""MEST: its bounds on trained weights, and its score."""

from __future__ import annotations

import torch
from dynamic import LEFT, line
from toy import set_up, watch

from dimred.methods.dynamic_sparse_training.mest import MEST
from dimred.select.allocations import Global


def test_mest_bounds_are_those_of_the_paper() -> None:
    hard, soft = (
        MEST(sparsity=0.9, update_every=40),
        MEST(sparsity=0.9, update_every=40, drop_fractions=(0.5, 0.25), soft_memory_bound=True),
    )
    epochs = (0, 89, 90, 119, 120, 159)
    assert [[round(1 - 0.1 * f, 4) for f in hard.bounds(e / 160)] for e in epochs] == [
        [0.92, 0.9],
        [0.92, 0.9],
        [0.91, 0.9],
        [0.91, 0.9],
        [0.9, 0.9],
        [0.9, 0.9],
    ]
    assert [[round(1 - 0.1 * f, 4) for f in soft.bounds(e / 160)] for e in epochs] == [
        [0.9, 0.85],
        [0.9, 0.85],
        [0.9, 0.875],
        [0.9, 0.875],
        [0.9, 0.9],
        [0.9, 0.9],
    ]


def test_mest_with_the_soft_bound_trains_more_until_the_last_moment() -> None:
    net, train = set_up()
    counts: list[int] = []
    watch(train, lambda t: counts.append(net.dim))
    # stages end at steps 14 and 28
    MEST(
        sparsity=0.8,
        allocation=Global(),
        update_every=16,
        drop_fractions=(0.5, 0.25),
        stage_ends=(0.35, 0.7),
        soft_memory_bound=True,
        gradient_weight=0.1,
    ).run(net, train)
    assert counts[:16] == [counts[0]] * 16 and abs(counts[0] - 1.5 * LEFT) <= 3
    assert (
        counts[16:28] == [counts[16]] * 12 and abs(counts[16] - 1.25 * LEFT) <= 3
    )  # the next update was at 16
    assert counts[28:] == [LEFT] * 12 and net.dim == LEFT


def test_mest_scores_size_and_gradient() -> None:
    net = line(0.5, -0.2, 0.1)
    net.keep({"weight": torch.tensor([0, 1])})
    w = net.weights["weight"]
    w.psi.grad = torch.tensor([0.0, -10.0])
    scores = MEST(
        sparsity=0.5, update_every=5, drop_fractions=(0.2,), stage_ends=(0.5,), gradient_weight=0.1
    ).scores(net)
    assert torch.allclose(scores["weight"], torch.tensor([0.5, 1.2, 0.0]))
