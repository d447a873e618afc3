"""Weights that are written when they are used: the memory that is free, and the same bits."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
import torch.nn.functional as F
from conftest import compose
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from dimred.conformance.checks import expect_same_when_resumed
from dimred.conformance.make import Make
from dimred.errors import UserError
from dimred.net import Net
from dimred.runs.identity import describe
from dimred.scores import random_scores
from dimred.select.topk import topk
from dimred.training.recipe import Recipe

WIDTH = 128
Build = Callable[[], nn.Module]


def pair(build: Build, density: float = 0.1) -> tuple[Net, Net]:
    """The same sparse net, with kept and with rewritten weights."""
    nets = []
    for rewritten in (False, True):
        torch.manual_seed(0)
        net = Net(build())
        net.keep(topk(random_scores(net), round(density * net.total)))
        if rewritten:
            net.rewrite_theta()
        nets.append(net)
    return nets[0], nets[1]


def layers() -> nn.Module:
    linear = [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*linear, nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


def gradients(net: Net, x: Tensor, loss: Callable[[Tensor], Tensor] = torch.sum) -> list[Tensor]:
    net.zero_grad()
    with net.weights_in_place(channels_last=True) as model:
        loss(model(x)).backward()
    return [p.grad for p in net.parameters().values() if p.grad is not None]


def expect_same_bits(build: Build, x: Tensor) -> None:
    kept, rewritten = pair(build)
    assert torch.equal(kept(x), rewritten(x))
    for one, other in zip(gradients(kept, x), gradients(rewritten, x), strict=True):
        assert torch.equal(one, other)


# -- by hand --------------------
def test_a_trained_weight_gets_its_entry_of_the_gradient() -> None:
    """y = W x with W = [[0, p], [0, 0]] and x = (3, 5): dy/dp = 5."""
    net = Net(nn.Linear(2, 2, bias=False))
    net.keep({"weight": torch.tensor([1])})
    net.assign({"weight": torch.tensor([[9.0, 2.0], [9.0, 9.0]])})
    net.rewrite_theta()
    out = net(torch.tensor([[3.0, 5.0]]))
    assert out.tolist() == [[10.0, 0.0]]
    out.sum().backward()
    grad = net.weights["weight"].psi.grad
    assert grad is not None and grad.tolist() == [5.0]
    assert net.dense_weights()["weight"].tolist() == [[0.0, 2.0], [0.0, 0.0]]


# -- memory --------------------
def allocated(work: Callable[[], object]) -> tuple[float, float]:
    """What is in memory after some work and was not before, and the most meanwhile, by PyTorch's
    allocator; in weights of a layer."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = work()
    results = profiler.profiler.kineto_results  # type: ignore[union-attr]
    sizes = [each.nbytes() for each in results.events() if each.name() == "[memory]"]
    so_far = list(accumulate(sizes, initial=0))
    assert len(sizes) > 10 and result is not None
    return so_far[-1] / (4 * WIDTH**2), max(so_far) / (4 * WIDTH**2)


def test_a_dense_weight_exists_only_while_its_layer_computes() -> None:
    """In a forward pass one weight at a time, then none; in a backward pass one and its gradient.
    With kept weights, all gradients are there before psi gets its entries of them."""
    x = torch.ones(2, WIDTH)
    kept, rewritten = pair(layers)
    sizes = [w.param.untyped_storage().nbytes() for w in rewritten.weights.values()]
    assert sizes == [4, 4, 4] and rewritten.weights["0.weight"].param.shape == (WIDTH, WIDTH)
    after, most = allocated(lambda: rewritten(x))
    assert after < 0.1 and 1 <= most < 1.1
    _, most = allocated(lambda: gradients(rewritten, x))
    assert 2 <= most < 2.5
    _, most = allocated(lambda: gradients(kept, x))
    assert 3 <= most < 3.5


def test_under_autocast_no_cast_weight_is_saved() -> None:
    def forward() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return net(x)  # type: ignore[no-any-return]

    x, (kept, net) = torch.ones(2, WIDTH), pair(layers)
    assert allocated(forward)[0] < 0.1
    net = kept
    assert allocated(forward)[0] > 0.9  # two of them, of half a weight each


# -- the same bits --------------------
class Tied(nn.Module):
    """One weight in two layers; the second of them is computed again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.one(x))
        return checkpoint(self.other, hidden, use_reentrant=False)  # type: ignore[no-any-return]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2)
    )


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (layers, (4, WIDTH)),
        (Tied, (4, WIDTH)),
        (Attention, (2, 5, 8)),
        (convolutions, (2, 3, 8, 8)),
    ],
)
def test_outputs_and_gradients_have_the_same_bits(build: Build, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    expect_same_bits(build, x)
    with torch.autocast("cpu", torch.bfloat16):
        expect_same_bits(build, x)


def test_second_derivatives_are_those_of_kept_weights() -> None:
    found = []
    for net in pair(layers):
        psi = [w.psi for w in net.weights.values()]
        loss = net(torch.ones(4, WIDTH)).pow(3).sum()
        grads = torch.autograd.grad(loss, psi, create_graph=True)
        size = sum(grad.pow(2).sum() for grad in grads)
        assert isinstance(size, Tensor)
        found.append(torch.autograd.grad(size, psi))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
        assert one.any()


def test_two_forward_passes_may_come_before_a_backward_pass_and_new_supports_between() -> None:
    for net in pair(layers):
        x = torch.ones(4, WIDTH)
        psi = {name: w.psi for name, w in net.weights.items()}
        first, second = net(x), net(2 * x)
        net.keep({"0.weight": torch.arange(7)})
        (first + second).sum().backward()
        assert all(each.grad is not None for each in psi.values())


def test_a_weight_that_was_changed_before_its_backward_pass_is_an_error() -> None:
    for net in pair(layers):
        out = net(torch.ones(4, WIDTH))
        with torch.no_grad():
            net.weights["4.weight"].psi.add_(1)
        net.dense_weights()  # kept weights notice the change when they are written
        with pytest.raises(RuntimeError, match=r"modified by an inplace|changed in place"):
            out.sum().backward()


def test_dense_gradients_are_those_of_kept_weights() -> None:
    found = []
    for net in pair(layers):
        net.retain_grad(True)
        gradients(net, torch.ones(4, WIDTH), lambda out: F.cross_entropy(out, torch.arange(4)))
        found.append(net.grads())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("method", ["snip", "rigl", "gmp", "freezenet", "imp"])
def test_crashed_runs_resume_to_the_same_bits(method: str) -> None:
    expect_same_when_resumed(
        Make(method, compose(f"method={method}")), 7, "rewritten weights", theta="rewritten"
    )


# -- the setting --------------------
def test_runs_have_the_same_name_with_both() -> None:
    assert describe(compose("recipe.theta=rewritten")) == describe(compose())


@pytest.mark.parametrize(
    "needs",
    [
        {"compile": True},
        {"capture": True},
        {"arithmetic": "auto"},
        {"cache_frozen_mb": 1},
        {"cache_frozen_disk_mb": 1},
        {"skip_removed_channels": True},
    ],
)
def test_what_needs_dense_weights_in_memory_is_refused(needs: dict[str, object]) -> None:
    key = next(iter(needs))
    with pytest.raises(UserError, match=f"recipe.theta=rewritten is not allowed.*recipe.{key}="):
        Recipe(theta="rewritten", **needs)  # type: ignore[arg-type]
