"""SRigL: constant fan-in, and ablation of neurons."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toy import set_up, watch

from dimred.methods.dynamic_sparse_training.srigl import SRigL, best_of_rows
from dimred.net import Net
from dimred.scores import magnitude
from dimred.select.allocations import ERK


@pytest.mark.parametrize("ablation", [0.0, 0.5])
def test_srigl_all_remaining_neurons_have_equally_many_inputs(ablation: float) -> None:
    net, train = set_up()
    ablated = changes = 0
    support = None

    def see(t: int) -> None:
        nonlocal ablated, changes, support
        for name, w in net.weights.items():
            inputs = w.trained().view(w.param.shape[0], -1).sum(1)
            alive = inputs[inputs > 0]
            assert len(alive.unique()) == 1
            assert 0 <= ERK(power=1.0)(net, 0.2)[name] - int(inputs.sum()) < len(alive)  # type: ignore[index]
            ablated += int((inputs == 0).sum()) if name == "4.weight" else 0
            assert name != "6.weight" or (inputs > 0).all()
        now = net.weights["4.weight"].support
        changes += support is not None and not torch.equal(now, support)
        support = now

    watch(train, see)
    SRigL(sparsity=0.8, update_every=5, drop_fraction=0.5, min_salient_fraction=ablation).run(
        net, train
    )
    assert changes > 2 and (ablated > 0) == (ablation > 0)


def test_srigl_keeps_the_largest_grows_by_gradient_and_ablates_idle_neurons() -> None:
    net = Net(nn.Linear(4, 3, bias=False))
    w = net.weights["weight"]
    with torch.no_grad():
        w.psi.copy_(torch.tensor([9.0, 8.0, 0.0, 0.0, 7.0, 6.0, 0.0, 0.0, 0.1, 0.2, 0.0, 0.0]))
    net.keep({"weight": torch.tensor([0, 1, 4, 5, 8, 9])})
    gradient = torch.tensor([[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 4.0, 3.0], [0.0, 0.0, 0.2, 0.1]])
    size = magnitude(net)["weight"]
    kept = SRigL().updated_support(size, gradient, w, fraction=0.34, budget=6, ablation=0.0)
    assert kept.tolist() == [0, 1, 4, 5, 10, 11]  # the last neuron loses two weights and grows two
    gone = SRigL().updated_support(size, gradient, w, fraction=0.34, budget=6, ablation=0.5)
    assert gone.tolist() == [0, 1, 3, 4, 5, 6]  # without it, three inputs for each of the others


def test_srigl_ablation_compares_with_the_fan_in_that_all_neurons_would_have() -> None:
    """9 weights for 4 neurons are k_0 = 2 each; where one is gone, 3. Of gamma = 0.7 that is one
    weight, not two."""
    net = Net(nn.Linear(6, 4, bias=False))
    w = net.weights["weight"]
    with torch.no_grad():
        w.psi.zero_()
        w.psi[torch.tensor([0, 1, 2, 6, 7, 8, 12, 13, 14])] = torch.tensor(
            [9.0, 8, 7, 6, 5, 4, 3, 0.1, 0.2]
        )
    net.keep({"weight": torch.tensor([0, 1, 2, 6, 7, 8, 12, 13, 14])})
    gradient = torch.zeros(4, 6)
    gradient[0, 3:5], gradient[1, 3], gradient[2] = (
        9.0,
        5.0,
        torch.tensor([0.0, 0.3, 0.1, 0.2, 0.4, 0.5]),
    )
    size = magnitude(net)["weight"]
    new = SRigL().updated_support(size, gradient, w, fraction=0.25, budget=9, ablation=0.7)
    # two are dropped; 12 is the only salient weight of its neuron, which lives and grows by its
    # largest gradients
    assert new.tolist() == [0, 1, 2, 6, 7, 8, 12, 16, 17]


def test_the_best_of_every_row_are_the_first_among_equals() -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    assert best_of_rows(scores, 2).tolist() == [
        [False, True, True, False],
        [True, True, False, False],
    ]
