"""A batch that is computed in micro-batches has the gradients of the whole batch."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import compose
from several import on_ranks
from torch import Tensor, nn
from toy import RECIPE, Blobs, set_up

from dimred.conformance.make import Make
from dimred.conformance.observe import difference, run
from dimred.errors import UserError
from dimred.net import Net
from dimred.net.transforms import Transform
from dimred.training.group import Group
from dimred.training.loop import Train
from dimred.training.ranks import ALONE, Ranks


def without_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 2)).double()


def one_step(accumulate: int, ranks: Ranks = ALONE, **recipe: Any) -> dict[str, Any]:
    """All that a step leaves, for a net of which one layer trains in part."""
    net = Net(without_norm(), seed=3)
    net.keep({"1.weight": torch.arange(0, 192, 3)})
    recipe = {"accumulate": accumulate, "batch_size": 15, "steps": 1, **recipe}
    train = Train(net, Blobs(torch.float64), dataclasses.replace(RECIPE, **recipe), ranks=ranks)
    found: dict[str, Any] = {}
    for _ in train.steps(dense_grad=lambda t: True):
        found |= {f"dense {name}": each.tolist() for name, each in net.grads().items()}
        gradients = {n: p.grad for n, p in net.parameters().items() if p.grad is not None}
        found |= {name: gradient.tolist() for name, gradient in gradients.items()}
        found["running"] = train.running_loss.read(1)
    return found


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    assert one.keys() == other.keys() and len(one) > 5
    return all(
        torch.allclose(torch.tensor(one[name]), torch.tensor(other[name]), rtol=1e-6)
        for name in one
    )


@pytest.mark.parametrize("accumulate", [2, 4, 15])
@pytest.mark.parametrize("theta", ["kept", "rewritten"])
def test_micro_batches_add_up_to_the_batch(accumulate: int, theta: str) -> None:
    how = {"label_smoothing": 0.1, "theta": theta}
    assert same(one_step(accumulate, **how), one_step(1, **how))


def test_accumulated_gradients_are_those_of_plain_pytorch() -> None:
    net, model = Net(without_norm(), seed=3), without_norm()
    recipe = dataclasses.replace(RECIPE, accumulate=4, batch_size=15)
    images, labels = next(Blobs(torch.float64).train_batches(15, 3, 0))
    F.cross_entropy(model(images), labels).backward()
    for _ in Train(net, Blobs(torch.float64), recipe, seed=3).steps(0, 1):
        for name, p in model.named_parameters():
            assert p.grad is not None
            torch.testing.assert_close(
                net.parameters()[name].grad.view(p.shape), p.grad, rtol=1e-6, atol=1e-9
            )


def on_a_rank(accumulate: int) -> dict[str, Any]:
    ranks = Group()
    found = one_step(accumulate, ranks)
    assert same(found, one_step(1))
    return found


def too_many() -> None:
    one_step(8, Group())


def test_ranks_divide_a_batch_and_then_their_shares(tmp_path: Path) -> None:
    first, second = on_ranks({"step": partial(on_a_rank, 3), "many": too_many}, 2, tmp_path)
    assert first["step"] == second["step"]
    assert "recipe.batch_size=15 is not allowed. It must be 16 or more" in first["many"]


@pytest.mark.parametrize("method", ["rigl", "bernoulli_supermask", "continuous_sparsification"])
def test_methods_run_on_micro_batches_with_captured_steps(method: str) -> None:
    """Steps as graphs have the same bits, masks that are drawn once a step among them."""
    make = Make(method, compose(f"method={method}"))
    found = [run(make(), "residual", steps=30, emulated=on, accumulate=3) for on in (True, False)]
    assert found[0].trace.captured > 0
    assert not difference(found[0].trace.state, found[1].trace.state)


class Draw(Transform):
    """Another random weight at every use."""

    def forward(self, theta: Tensor) -> Tensor:
        return theta * torch.rand_like(theta)


def test_random_weights_are_drawn_once_for_all_micro_batches() -> None:
    net, train = set_up(accumulate=4)
    net.add_transforms({"0.weight": Draw()})
    used: list[float] = []
    hook = net.model[0].register_forward_hook(lambda m, given, out: used.append(m.weight.sum()))
    for _ in train.steps(0, 2):
        pass
    hook.remove()
    steps = torch.stack(used)[:8].view(2, 4)
    assert (steps == steps[:, :1]).all() and steps[0, 0] != steps[1, 0]


def test_no_more_micro_batches_than_examples() -> None:
    with pytest.raises(UserError, match=r"recipe.accumulate=9 is not allowed.*at most"):
        set_up(accumulate=9)
