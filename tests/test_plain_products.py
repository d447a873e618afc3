"""Scores with second derivatives on attention and recurrent layers, whose fused kernels have
none."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from kinds import SHAPE, Recurrent
from torch import Tensor, nn

from dimred.net import Net
from dimred.net.plain_products import plain_kernels
from dimred.scores import Scores, Thetas, grasp, prospr, snip, transfer, untouched


class Attention(nn.Module):
    """Self-attention of four rows with two heads, by PyTorch's layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = x[:, 0]
        return self.head(self.attention(rows, rows, rows, need_weights=False)[0].mean(1))


class Written(Attention):
    """The same by hand: softmax(q k^T / sqrt d) v."""

    def forward(self, x: Tensor) -> Tensor:
        layer = self.attention
        q, k, v = (x[:, 0] @ layer.in_proj_weight.T + layer.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (2, 3)).transpose(1, 2) for part in (q, k, v))
        weights = (q @ k.transpose(-1, -2) / 3**0.5).softmax(-1)
        rows = (weights @ v).transpose(1, 2).flatten(2)
        return self.head((rows @ layer.out_proj.weight.T + layer.out_proj.bias).mean(1))


def batch(count: int = 5) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(count)
    return torch.randn(count, *SHAPE, generator=draws), torch.randint(2, (count,), generator=draws)


def distance(net: Net, thetas: Thetas) -> Tensor:
    """NTT's, from a net that is given."""
    teacher = {
        name: (1.1 * theta.flip(0)).requires_grad_() for name, theta in net.dense_weights().items()
    }
    with untouched(net.model):
        draws = torch.Generator().manual_seed(0)
        far, kernels = transfer(
            net, thetas, teacher, net.supports, batch()[0].to(thetas["head.weight"]), draws
        )
    return far + kernels


def transferred(net: Net) -> Scores:
    thetas = {name: theta.clone().requires_grad_() for name, theta in net.dense_weights().items()}
    return dict(
        zip(thetas, torch.autograd.grad(distance(net, thetas), list(thetas.values())), strict=True)
    )


SECOND: dict[str, Callable[[Net], Scores]] = {
    "grasp": lambda net: grasp(net, batch()),
    "prospr": lambda net: prospr(net, [batch(4), batch(5)], lr=0.1),
    "ntt": transferred,
}


@pytest.mark.parametrize("score", SECOND)
def test_second_derivatives_of_attention_are_those_of_softmax_by_hand(score: str) -> None:
    written = Written()
    layers = Attention()
    layers.load_state_dict(written.state_dict())
    found, expected = (SECOND[score](Net(model, shape=SHAPE)) for model in (layers, written))
    assert (
        found.keys()
        == expected.keys()
        == {"attention.in_proj_weight", "attention.out_proj.weight", "head.weight"}
    )
    for name, value in found.items():
        torch.testing.assert_close(
            value, expected[name], rtol=1e-4, atol=1e-6 * float(value.abs().max())
        )


def test_the_gradient_of_a_kernel_of_attention_is_that_of_finite_differences() -> None:
    net = Net(Attention().double(), shape=SHAPE)
    thetas, grads = net.dense_weights(), transferred(net)
    for name, theta in thetas.items():
        step = 1e-5 * torch.randn(theta.shape, dtype=theta.dtype)
        moved = [{**thetas, name: theta + sign * step} for sign in (1, -1)]
        up, down = (
            float(distance(net, {n: t.requires_grad_() for n, t in each.items()}).detach())
            for each in moved
        )
        assert float((grads[name] * step).sum()) == pytest.approx((up - down) / 2, rel=1e-4)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_have_second_derivatives(kind: type[nn.RNNBase]) -> None:
    """ProsPr in float32, where CPUs have a fused LSTM, is as in float64, where they have none."""
    single = Net(Recurrent(kind), shape=SHAPE)
    double = copy.deepcopy(single).to(dtype=torch.float64)
    batches = [batch(4), batch(5)]
    found = prospr(single, batches, lr=0.1)
    expected = prospr(double, [(images.double(), labels) for images, labels in batches], lr=0.1)
    for name, value in found.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-3, atol=1e-6)


def test_plain_kernels_are_for_the_block_alone() -> None:
    before = torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(KeyError), plain_kernels(Recurrent(nn.LSTM)):
        assert not torch.backends.mkldnn.enabled
        raise KeyError
    assert (torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled()) == before
    snip(Net(Attention(), shape=SHAPE), batch())
    assert torch.backends.mha.get_fastpath_enabled()
