"""N:M sparsity: exact counts in every group, and its limits."""

from __future__ import annotations

import logging

import pytest
import torch
from dynamic import dims, same
from toy import set_up

from dimred.errors import UserError
from dimred.methods.nm_sparsity import NM, LargestOf
from dimred.methods.reference_networks import Dense


def test_nm_keeps_exactly_the_n_largest_of_every_m_channels_first() -> None:
    theta = torch.arange(2 * 4 * 3 * 3, dtype=torch.float32).view(2, 4, 3, 3)
    kept = LargestOf(2, 4, 0.0).kept(theta)
    assert torch.equal(
        kept, (torch.arange(4) >= 2).view(1, 4, 1, 1).expand(2, 4, 3, 3)
    )  # of each place's channels
    tied = LargestOf(2, 4, 0.0).kept(torch.tensor([[1.0, -1.0, 1.0, 0.5, 0.0, 0.0, 0.0, -2.0]]))
    assert tied.tolist() == [[True, True, False, False, True, False, False, True]]
    for n, m in ((1, 4), (2, 4), (4, 8), (4, 4)):
        theta = torch.randn(6, 16, 3, 3)
        groups = LargestOf(n, m, 0.0)(theta).permute(0, 2, 3, 1).reshape(-1, m)
        sizes = theta.permute(0, 2, 3, 1).reshape(-1, m).abs()
        assert ((groups != 0).sum(1) == n).all()
        assert torch.equal(
            groups.abs().sort(1).values[:, m - n :], sizes.sort(1).values[:, m - n :]
        )


def test_nm_unused_weights_train_and_decay() -> None:
    theta = torch.tensor([[4.0, 1.0, -3.0, 2.0]], requires_grad=True)
    each, g = LargestOf(2, 4, 0.5), torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    ((each(theta) * g).sum() + each.penalty(theta)).backward()
    assert theta.grad.tolist() == [[1.0, 2.0 + 0.5 * 1.0, 3.0, 4.0 + 0.5 * 2.0]]


def test_nm_ends_in_a_plain_sparse_network_and_leaves_layers_that_do_not_fit_dense(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net, train = set_up()
    with caplog.at_level(logging.WARNING, "dimred"):
        NM().run(net, train)
    assert "the number of inputs is not a multiple of 4: 0.weight" in caplog.text  # 9 inputs
    assert not net.transforms and dims(net) == {"0.weight": 36, "4.weight": 384, "6.weight": 12}
    with pytest.raises(
        UserError, match="needs a layer with a number of inputs that is a multiple of"
    ):
        NM(m=7).run(*set_up())


def test_nm_with_all_of_every_group_is_dense_training() -> None:
    dense, train = set_up()
    Dense().run(dense, train)
    net, train = set_up()
    NM(n=4).run(net, train)
    assert same(net, dense)
