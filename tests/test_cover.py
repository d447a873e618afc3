"""Covered weights: those that multiply activations, wherever the model keeps them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from kinds import SHAPE, Attention, Functional, Recurrent
from torch import nn

from dimred.net import Net
from dimred.net.layers import dense_matrices


def covered(model: nn.Module) -> set[str]:
    return set(Net(model, shape=SHAPE).weights)


def test_attention_is_covered_and_its_tokens_and_positions_are_not() -> None:
    ends = {"embed.weight", "head.weight", "attention.out_proj.weight"}
    assert covered(Attention()) == ends | {"attention.in_proj_weight"}
    apart = {f"attention.{letter}_proj_weight" for letter in "qkv"}
    assert covered(Attention(kdim=4, vdim=4)) == ends | apart


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_are_covered_without_their_biases(kind: type[nn.RNNBase]) -> None:
    names = {f"rnn.weight_{ends}_l0{way}" for ends in ("ih", "hh") for way in ("", "_reverse")}
    assert covered(Recurrent(kind, bidirectional=True)) == names | {"head.weight"}


def test_matrices_that_multiply_activations_are_covered_whatever_holds_them() -> None:
    assert covered(Functional()) == {"mix", "experts", "layer.weight"}


def test_the_first_parameter_need_not_have_the_type_of_images() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(24, 2))
    model[0].places = nn.Parameter(torch.arange(3), requires_grad=False)
    assert covered(model) == {"1.weight"}


def test_without_the_shape_of_images_the_known_layers_are_covered() -> None:
    assert set(Net(Functional()).weights) == {"layer.weight"}
    assert set(Net(Attention()).weights) == covered(Attention())


def test_a_matrix_of_two_modules_is_covered_under_its_first_name() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(24, 24, bias=False), nn.Linear(24, 24))
    model[2].weight = model[1].weight
    assert covered(model) == {"1.weight"}


def test_one_sentence_names_the_matrices_that_stay_dense() -> None:
    model = Attention()
    net = Net(model, include=["embed.weight", "head.weight"], shape=SHAPE)
    share = (3 * 64 + 64) / (3 * 64 + 64 + 48 + 16)
    said = dense_matrices(model, net.weights, SHAPE)
    assert f"{share:.1%}" in said and "attention.in_proj_weight, attention.out_proj.weight" in said
    assert not dense_matrices(model, covered(model), SHAPE)


# -- weights that a layer makes of a parameter --------------------
P, U = nn.utils.parametrizations, nn.utils


def model_of(make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), make(nn.Linear(24, 6)), nn.Linear(6, 2))


def test_a_parameter_is_covered_where_its_zeros_are_zeros_of_the_weight() -> None:
    """Spectral norm divides by a number; so all of the parameter's zeros stay, in copies too."""
    for make, name in (
        (P.spectral_norm, "parametrizations.weight.original"),
        (U.spectral_norm, "weight_orig"),
    ):
        model = model_of(make)
        net = Net(model, shape=SHAPE)
        assert set(net.weights) == {f"1.{name}", "2.weight"}
        net.keep({f"1.{name}": torch.arange(7)})
        for each in (net, copy.deepcopy(net)):
            each(torch.randn(3, *SHAPE)).sum().backward()
            assert each.weights[f"1.{name}"].psi.grad.count_nonzero() == 7
            with each.weights_in_place() as live:
                live(torch.randn(3, *SHAPE))
                assert live[1].weight.count_nonzero() == 7


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_parameters_that_cannot_be_sparse_stay_dense_and_are_named() -> None:
    """An orthogonal weight has no zeros; weight norm divides a row of zeros by its length."""
    for make, name in (
        (P.orthogonal, "parametrizations.weight.original"),
        (U.weight_norm, "weight_v"),
        (P.weight_norm, "parametrizations.weight.original1"),
    ):
        model = model_of(make)
        net = Net(model, shape=SHAPE)
        assert set(net.weights) == {"2.weight"}
        said = dense_matrices(model, net.weights, SHAPE)
        assert "92.3% of the weights in matrices stay dense" in said
        assert f"because they are not covered: 1.{name}." in said
        net(torch.randn(3, *SHAPE)).sum().backward()
        copy.deepcopy(net)(torch.randn(3, *SHAPE)).sum().backward()


# -- theta is what computes --------------------
@pytest.mark.parametrize(
    "model",
    [Attention(), Attention(kdim=4, vdim=4), Recurrent(nn.LSTM), Recurrent(nn.GRU), Functional()],
    ids=["attention", "kdim", "lstm", "gru", "functional"],
)
def test_every_layer_computes_with_theta_in_training_and_evaluation(model: nn.Module) -> None:
    """As a plain copy of the model with the pruned weights does, and so do its gradients."""
    net = Net(copy.deepcopy(model).double(), shape=SHAPE)
    x = torch.randn(3, *SHAPE, dtype=torch.float64)
    net(x)  # what a layer remembers of its weights is those of another time
    net.keep({name: torch.arange(0, w.size, 3) for name, w in net.weights.items()})
    plain = copy.deepcopy(model).double()
    plain.load_state_dict(net.state_dict())
    for parameter in plain.parameters():
        parameter.requires_grad_(True)
    for mode in (True, False):
        net.train(mode)
        plain.train(mode)
        with torch.no_grad():
            torch.testing.assert_close(net(x), plain(x), rtol=1e-12, atol=1e-12)
    net.train()
    net(x).sum().backward()
    plain.train()(x).sum().backward()
    dense = dict(plain.named_parameters())
    for name, w in net.weights.items():
        torch.testing.assert_close(w.psi.grad, w.gather(dense[name].grad.view(-1)))
