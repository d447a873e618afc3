"""GraNet: its limits, GMP and ITOP, and its schedule."""

from __future__ import annotations

from dynamic import TOTAL, dims, same
from toy import set_up, watch

from dimred.methods.dynamic_sparse_training.granet import GraNet
from dimred.methods.dynamic_sparse_training.itop import ITOP
from dimred.methods.gradual_pruning import GMP
from dimred.select.allocations import Global


def test_granet_without_regrowth_is_gmp() -> None:
    gmp, train = set_up()
    GMP(sparsity=0.9, allocation=Global(), update_every=4).run(gmp, train)
    net, train = set_up()
    GraNet(
        sparsity=0.9,
        initial_sparsity=0.0,
        prune_until=0.5,
        update_every=4,
        drop_fraction=0.0,
        min_drop_fraction=0.0,
    ).run(net, train)
    assert same(net, gmp) and net.dim == round(0.1 * TOTAL)


def test_granet_that_starts_at_the_final_sparsity_is_itop() -> None:
    itop, train = set_up()
    ITOP(sparsity=0.8, update_every=5, grow="gradient").run(itop, train)
    net, train = set_up()
    GraNet(sparsity=0.8, initial_sparsity=0.8, prune_until=0.5, update_every=5).run(net, train)
    assert dims(net) == dims(itop) and same(net, itop)


def test_granet_density_follows_the_cubic_whatever_is_regrown() -> None:
    net, train = set_up()
    counts: list[int] = []
    watch(train, lambda t: counts.append(net.dim))
    GraNet(sparsity=0.9, prune_until=0.5, update_every=4).run(net, train)
    for t in range(40):
        s = 0.9 - 0.4 * (1 - min(t // 4 * 4, 20) / 20) ** 3
        assert counts[t] == round((1 - s) * TOTAL)
