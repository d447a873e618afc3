"""What was trained of a network, counted: to the end, at any time, in place of weights, and besides
them."""

from __future__ import annotations

from typing import Any

from torch import nn

from dimred.net import Net
from dimred.net.layers import NORMS
from dimred.training.exploration import Exploration


def counts(net: Net, exploration: Exploration) -> dict[str, Any]:
    """The entries of a result that are counts of weights and of other numbers.

    dim: how many numbers make what is trained of the covered weights: weights that hold a trained
    value in the end, the parameters of bases, and those of maps over weights that do not train
    (scores of a supermask, z of a subspace).
    """
    final = exploration.final()
    layers = counts_of_layers(net, final)
    bases = sum(p.numel() for p in net.bases.parameters().values() if p.requires_grad)
    dim = sum(final.values()) + bases + exploration.in_place
    nonzero = sum(layer["nonzero"] for layer in layers.values())
    others = uncovered(net)
    return {
        "dim": dim,
        "total": net.total,
        "nonzero": nonzero,
        "density": nonzero / net.total,
        "trained_ever": exploration.ever(),
        "trained_to_the_end": exploration.to_the_end(),
        "other_numbers": exploration.others,
        "explored": exploration.explored(),
        "uncovered": others,
        "uncovered_layers": uncovered_layers(net),
        "trained_parameters": dim + sum(others.values()) - removed(net),
        "layers": layers,
    }


def counts_of_layers(net: Net, final: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Of each covered weight: its shape and size, how many entries hold a trained value, and how
    many are not zero."""
    values = net.effective_weights()
    return {
        name: {
            "shape": list(w.param.shape),
            "total": w.size,
            "trained": final[name],
            "nonzero": int(values[name].count_nonzero()),
        }
        for name, w in net.weights.items()
    }


def uncovered(net: Net) -> dict[str, int]:
    """How many parameters train that are not covered, by what they are; those of removed channels
    too."""
    found: dict[str, int] = {}
    for name, parameter in trained_rest(net).items():
        kind = kind_of(net.model, name)
        found[kind] = found.get(kind, 0) + parameter.numel()
    return found


def uncovered_layers(net: Net) -> list[str]:
    """The layers whose weights train without being covered."""
    names = [name for name in trained_rest(net) if kind_of(net.model, name) == "weights"]
    return list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))


def removed(net: Net) -> int:
    """Uncovered parameters of channels that were removed, which train to no effect (see
    dimred/channels/smaller.py)."""
    return int(net.reported.get("removed", 0))


def trained_rest(net: Net) -> dict[str, nn.Parameter]:
    bases = net.bases.parameters()
    return {name: p for name, p in net.uncovered.items() if p.requires_grad and name not in bases}


def kind_of(model: nn.Module, name: str) -> str:
    """biases, norms or weights: what a parameter is, by its name in the model."""
    module, _, key = name.rpartition(".")
    if isinstance(model.get_submodule(module), NORMS):
        return "norms"
    return "biases" if "bias" in key else "weights"
