"""Channels in the last dimension: neurons and heads of transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import compose
from torch import Tensor, nn

import dimred
from dimred.channels.selection import Channels
from dimred.channels.smaller import without_channels
from dimred.errors import UserError
from dimred.net import Net
from dimred.runs.nets import build_net

TOKENS = torch.zeros(2, 6)


def transformer() -> Net:
    """Two heads of four in one block, with an MLP of 16."""
    sizes = ["model.dim=8", "model.depth=1", "model.heads=2", "model.mlp=2"]
    return build_net(compose("dataset=brackets", *sizes), (6,), 2)


def test_neurons_and_heads_of_a_transformer_worked_out_by_hand() -> None:
    """Rows of queries, keys and values of a head, and the columns of the output that read it; rows
    and columns of a neuron. What blocks add to is normalised over all of its channels: it stays."""
    channels = Channels(transformer(), TOKENS)
    head = [0] * 4 + [1] * 4
    neurons = list(range(2, 18))
    assert {name: each.tolist() for name, each in channels.filters.items()} == {
        "blocks.0.attention.qkv.weight": head * 3,
        "blocks.0.fc1.weight": neurons,
    }
    assert {name: each.tolist() for name, each in channels.columns.items()} == {
        "blocks.0.attention.out.weight": head,
        "blocks.0.fc2.weight": neurons,
    }
    assert channels.rows["blocks.0.attention.qkv.bias"].tolist() == head * 3


@torch.no_grad()
def test_a_transformer_without_a_head_and_neurons_has_the_logits_of_the_pruned_one() -> None:
    net = transformer()
    for parameter in net.parameters().values():
        parameter.normal_()
    channels = Channels(net, TOKENS)
    kept = channels.everything()
    kept[[0, 3, 7]] = False
    channels.keep(kept)
    net.train(False)
    small = without_channels(net, TOKENS).eval()
    block = small.blocks[0]
    assert block.attention.qkv.weight.shape == (3 * 4, 8) and block.fc2.weight.shape == (8, 14)
    tokens = torch.randint(0, 5, (5, 6)).float()
    torch.testing.assert_close(small(tokens), net(tokens))


class Odd(nn.Module):
    """Attention by products of matrices with a bias for each head, or softmax over the heads."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.qkv, self.out = kind, nn.Linear(8, 24), nn.Linear(8, 2)
        self.bias = nn.Parameter(torch.zeros(1, 2, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = F.one_hot(x.long(), 8).to(x)
        if self.kind == "chunks":
            q, k, v = (
                each.unflatten(2, (-1, 4)).swapaxes(1, 2) for each in self.qkv(x).chunk(3, 2)
            )
        else:
            sizes = (3, 2, 4) if self.kind == "fixed" else (3, -1, 4)
            q, k, v = self.qkv(x).unflatten(-1, sizes).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * 0.5
        if self.kind == "biased":
            scores = scores + self.bias
        mixed = scores.softmax(1 if self.kind == "over heads" else -1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2)).mean(1)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["plain", "chunks"])
def test_heads_of_attention_that_is_written_out_can_be_removed(kind: str) -> None:
    net = Net(Odd(kind), shape=(6,))
    channels = Channels(net, TOKENS)
    assert channels.count == 2
    channels.keep(torch.tensor([False, True]))
    net.train(False)
    small = without_channels(net, TOKENS)
    assert small.qkv.weight.shape == (12, 8)
    tokens = torch.randint(0, 8, (5, 6)).float()
    torch.testing.assert_close(small(tokens), net(tokens))


@pytest.mark.parametrize("kind", ["fixed", "biased", "over heads"])
def test_heads_whose_number_the_model_fixes_or_mixes_stay(kind: str) -> None:
    with pytest.raises(UserError, match="no channel that can be removed"):
        Channels(Net(Odd(kind), shape=(6,)), TOKENS)


def test_heads_and_neurons_are_pruned_and_skipped_in_training(tmp_path: Path) -> None:
    small = {"dataset.length": 6, "dataset.examples": (300, 100), "model.dim": 16, "sparsity": 0.5}
    for method in ("channel_at_init", "l1_filters"):
        accuracies = set()
        for skip in (False, True):
            result = dimred.train(
                method,
                dataset="brackets",
                outputs=str(tmp_path / str(skip)),
                recipe={"epochs": 1, "skip_removed_channels": skip},
                **small,
            )
            assert 0.9 * result.total / 2 < result.dim <= result.total / 2
            accuracies.add(result.test_accuracy)
        assert len(accuracies) == 1
