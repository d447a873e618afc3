"""Dynamic sparse reparameterisation (DSR): its threshold."""

from __future__ import annotations

import pytest
from dynamic import LEFT, dims, line
from toy import set_up, watch

from dimred.methods.dynamic_sparse_training.dsr import DSR, below
from dimred.scores import random_scores
from dimred.select.allocations import Uniform
from dimred.select.topk import topk


@pytest.mark.parametrize("threshold, end", [(1e6, 1e6 / 2**4), (1e-9, 1e-9 * 2**4)])
def test_dsr_threshold_halves_after_too_much_and_doubles_after_too_little(
    threshold: float, end: float
) -> None:
    net, train = set_up(lr=1e-6)
    counts: list[dict[str, int]] = []
    watch(train, lambda t: counts.append(dims(net)))
    DSR(
        sparsity=0.8,
        allocation=Uniform(),
        update_every=8,
        double_period_at=(),
        initial_threshold=threshold,
    ).run(net, train)  # at 8, 16, 24, 32
    assert net.reported == {"threshold": end}
    assert all(sum(each.values()) == LEFT and min(each.values()) >= 1 for each in counts)


def test_dsr_threshold_stays_on_target() -> None:
    net, _ = set_up()
    net.keep(topk(random_scores(net), Uniform()(net, 0.2)))  # DSR's first support
    share = sum(below(net, 0.05).values()) / LEFT
    net, train = set_up(lr=1e-6, steps=9)
    DSR(
        sparsity=0.8,
        allocation=Uniform(),
        update_every=8,
        double_period_at=(),
        drop_fraction=share,
        initial_threshold=0.05,
    ).run(net, train)
    assert 0.1 < share < 0.9 and net.reported == {"threshold": 0.05}


def test_dsr_never_empties_a_layer() -> None:
    net = line(0.1, -0.2, 0.3)
    assert below(net, 0.25) == {"weight": 2} == below(net, 99.0) and below(net, 0.1) == {
        "weight": 0
    }
