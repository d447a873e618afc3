"""Exact selection and allocation, and scores that change nothing."""

import copy

import pytest
import torch
import torch.nn.functional as F
from at_init import mlp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dimred.errors import UserError
from dimred.net import Net
from dimred.scores import gradients, magnitude, random_scores, snip
from dimred.select.allocations import ERK, Global, Uniform
from dimred.select.rewiring import drop, grow
from dimred.select.topk import largest, topk


def lenet300() -> nn.Sequential:
    return mlp(784, 300, 100, 10, bias=True)


def lenet5() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5), nn.Linear(800, 500), nn.Linear(500, 10)
    )


# -- the k largest -------------------------------------------------------------------------------
#            position    0    1    2    3    4    5    6    7
EIGHT = torch.tensor([0.5, 2.0, 2.0, 0.1, 2.0, -1.0, 0.5, 3.0])


@pytest.mark.parametrize(
    ("k", "positions"),
    [
        (0, []),
        (1, [7]),
        (2, [1, 7]),
        (3, [1, 2, 7]),
        (4, [1, 2, 4, 7]),
        (5, [0, 1, 2, 4, 7]),
        (6, [0, 1, 2, 4, 6, 7]),
        (7, [0, 1, 2, 3, 4, 6, 7]),
        (8, list(range(8))),
        (9, list(range(8))),
    ],
)
def test_ties_go_to_the_first_positions(k: int, positions: list[int]) -> None:
    assert largest(EIGHT, k).tolist() == positions


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 3.0, float("-inf"), 1e-30]),
        min_size=1,
        max_size=40,
    ),
    st.integers(0, 40),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_exactly_k_are_taken_and_none_that_is_left_is_larger(
    values: list[float], k: int, dtype: torch.dtype
) -> None:
    scores = torch.tensor(values, dtype=dtype)
    chosen = largest(scores, k)
    assert len(chosen) == min(k, len(values)) and torch.equal(chosen, chosen.sort().values)
    by_hand = sorted(sorted(range(len(values)), key=lambda i: (-scores[i].item(), i))[:k])
    assert chosen.tolist() == by_hand


def test_scores_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="1 of 3 scores are not a number"):
        largest(torch.tensor([1.0, float("nan"), 2.0]), 1)


def test_one_budget_ranks_all_weights_together_and_several_rank_each() -> None:
    scores = {"a": torch.tensor([[1.0, 5.0], [0.0, 4.0]]), "b": torch.tensor([3.0, 2.0, 6.0])}
    together = topk(scores, 4)
    assert {name: s.tolist() for name, s in together.items()} == {"a": [1, 3], "b": [0, 2]}
    each = topk(scores, {"a": 3, "b": 1})
    assert {name: s.tolist() for name, s in each.items()} == {"a": [0, 1, 3], "b": [2]}


# -- drop and grow -------------------------------------------------------------------------------
def test_drop_and_grow_by_hand() -> None:
    net = Net(nn.Linear(8, 1, bias=False))
    # weight      0     1     2     3     4     5     6     7
    values = [0.9, -0.1, 0.5, 0.0, -0.7, 0.0, 0.0, 0.2]
    with torch.no_grad():
        net.weights["weight"].psi.copy_(torch.tensor(values))
    net.keep({"weight": torch.tensor([0, 1, 2, 4, 7])})
    kept = drop(net, magnitude(net), {"weight": 2})  # the smallest, 0.1 and 0.2, go
    assert kept["weight"].tolist() == [0, 2, 4]
    gradient = {"weight": torch.tensor([[9.0, 0.4, 9.0, 0.3, 9.0, 0.1, 0.6, 0.2]])}
    grown = grow(kept, gradient, {"weight": 2})  # of the others, 6 and 1: one that was just dropped
    assert grown["weight"].tolist() == [0, 1, 2, 4, 6]
    net.keep(grown)
    assert torch.allclose(net.weights["weight"].psi, torch.tensor([0.9, -0.1, 0.5, -0.7, 0.0]))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 10**6))
def test_counts_are_exact_after_any_drop_and_grow(size: int, count: int, seed: int) -> None:
    net = Net(nn.Linear(6, 5, bias=False), seed=seed)
    net.keep(topk(random_scores(net), size))
    count = min(count, size)
    net.keep(
        grow(drop(net, magnitude(net), {"weight": count}), random_scores(net), {"weight": count})
    )
    assert net.dim == size


# -- allocations ---------------------------------------------------------------------------------
FIXTURES = [  # densities worked out independently from the formula of the paper
    (lenet300, 0.90, [0.0796, 0.2302, 1.0]),
    (lenet300, 0.95, [0.0385, 0.1113, 0.9185]),
    (lenet300, 0.98, [0.0154, 0.0445, 0.3674]),
    (lenet5, 0.90, [1.0, 0.0871, 0.0884, 1.0]),
    (lenet5, 0.98, [0.2779, 0.0143, 0.0146, 0.4572]),
]


@pytest.mark.parametrize(("model", "sparsity", "densities"), FIXTURES)
def test_erk_densities(model: object, sparsity: float, densities: list[float]) -> None:
    net = Net(model())  # type: ignore[operator]
    counts = ERK(power=1.0)(net, 1 - sparsity)
    for w, count, density in zip(net.weights.values(), counts.values(), densities, strict=True):
        assert abs(count / w.size - density) < 0.0015


@settings(max_examples=100, deadline=None)
@given(
    st.floats(0.0, 0.999),
    st.sampled_from([Global(), Uniform(), ERK(power=1.0), ERK(power=0.5)]),
    st.sampled_from([lenet300, lenet5]),
)
def test_every_allocation_meets_the_budget_to_the_weight(
    sparsity: float, allocation: object, model: object
) -> None:
    net = Net(model())  # type: ignore[operator]
    budget = allocation(net, 1 - sparsity)  # type: ignore[operator]
    net.keep(topk(random_scores(net), budget))
    assert net.dim == round((1 - sparsity) * net.total)


def test_uniform_is_uniform() -> None:
    net = Net(lenet300())
    counts = Uniform()(net, 0.1)
    assert counts == {"0.weight": 23520, "2.weight": 3000, "4.weight": 100}


# -- scores --------------------------------------------------------------------------------------
def conv_bn_dropout() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


@pytest.mark.parametrize("score", [magnitude, random_scores, lambda net: snip(net, examples())])
def test_scoring_changes_nothing(score: object) -> None:
    net = Net(conv_bn_dropout())
    net.keep({"5.weight": torch.arange(50)})
    before, random = copy.deepcopy(net.state()), torch.get_rng_state()
    first, second = score(net), score(net)  # type: ignore[operator]
    assert all(torch.equal(first[name], second[name]) for name in net.weights)
    assert torch.equal(random, torch.get_rng_state()) and net.model.training
    assert all(torch.equal(value, before[key]) for key, value in net.state().items())
    assert all(p.grad is None for p in net.parameters().values())


def examples() -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(3)
    return torch.randn(20, 1, 6, 6, generator=draws), torch.randint(3, (20,), generator=draws)


def test_random_scores_depend_on_seed_time_and_purpose_only() -> None:
    net, again, other = (Net(mlp(5, 4, 3, bias=True), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(random_scores(net)["0.weight"], random_scores(again)["0.weight"])
    assert not torch.equal(random_scores(net)["0.weight"], random_scores(other)["0.weight"])
    assert not torch.equal(
        random_scores(net)["0.weight"], random_scores(net, "another")["0.weight"]
    )
    again.keep({"0.weight": torch.arange(3)})
    assert not torch.equal(random_scores(net)["0.weight"], random_scores(again)["0.weight"])


def test_magnitude_ignores_signs_and_ranks_what_is_not_trained_last() -> None:
    net = Net(nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        net.weights["weight"].psi.copy_(torch.tensor([1.0, -3.0, 2.0, -4.0]))
    net.keep({"weight": torch.tensor([0, 1, 2])})
    assert magnitude(net)["weight"].tolist() == [[1.0, 3.0, 2.0, -torch.inf]]


def test_snip_is_the_gradient_of_a_mask_at_one() -> None:
    net = Net(mlp(6, 5, 3, bias=True).double())
    images, labels = torch.randn(9, 6).double(), torch.arange(9) % 3
    masks = {
        name: torch.ones_like(theta, requires_grad=True)
        for name, theta in net.dense_weights().items()
    }
    hidden = images
    for i, (name, theta) in enumerate(net.dense_weights().items()):
        hidden = F.linear(
            hidden, theta * masks[name], net.uncovered[name.replace("weight", "bias")]
        )
        hidden = hidden.relu() if i == 0 else hidden
    grads = torch.autograd.grad(F.cross_entropy(hidden, labels), list(masks.values()))
    for score, grad in zip(snip(net, (images, labels)).values(), grads, strict=True):
        assert torch.allclose(score, grad.abs())


def test_signed_saliencies_of_all_layers_have_the_same_sum_without_biases() -> None:
    net = Net(mlp(20, 30, 15, 5).double())
    batch = torch.randn(64, 20).double(), torch.randint(0, 5, (64,))
    grads = gradients(net, batch)
    sums = [float((theta * grads[name]).sum()) for name, theta in net.dense_weights().items()]
    assert max(sums) - min(sums) < 1e-10
