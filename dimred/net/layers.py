"""The layers of a model: its covered weights, norms, the output layer, names that match a pattern.

Covered weights are those that may be pruned or frozen in part, and that are counted: by default the
ones that multiply activations in a matrix product or a convolution. Those of Linear, Conv,
attention and recurrent layers are known by their names. Others (a user's own matrices, weights that
a layer computes from a parameter, such as weight_norm's) are found by executing the model, if the
shape of its images is given. Embeddings, position embeddings, class tokens, norms and biases are
not covered: they are added, or scale.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from torch import nn

from dimred.errors import UserError, listed, nearest
from dimred.net.product_flops import Product, trace

if TYPE_CHECKING:
    from dimred.net import Net

KINDS = (nn.Linear, nn.modules.conv._ConvNd)
ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


# -- covered weights --------------------


def covered_names(
    model: nn.Module,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    shape: Sequence[int] | None = None,
) -> list[str]:
    """Names of the covered parameters, in the model's order. See Net."""
    names = [name for name, _ in model.named_parameters()]
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    include, exclude = list(include), list(exclude)
    chosen = _weights(model, shape)
    if include:
        chosen = set(matching(include, names, "include"))
    chosen -= set(matching(exclude, names, "exclude"))
    if chosen and not chosen - frozen:
        raise UserError(
            "no weight is covered: the model's builder has frozen "
            "(requires_grad=False) "
            f"{', '.join(name for name in names if name in chosen)}. Leave some of "
            "them trainable there"
        )
    if not chosen:
        raise UserError(
            f"no weight is covered: include={include} and exclude={exclude} leave none of "
            f"{', '.join(names)}. Loosen them"
        )
    return [name for name in names if name in chosen - frozen]


def dense_matrices(model: nn.Module, covered: Container[str], shape: Sequence[int]) -> str:
    """A sentence about the matrices that stay dense and train, if there are any: their share, and
    the first of them."""
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    products = _weight_products(model, shape)
    names = {each.use.name for each in products if each.use}
    # a weight that is made of several parameters counts as the largest of them
    names |= {max(each.roots, key=sizes.__getitem__) for each in products if not each.use}
    dense = [name for name in sizes if name in names & trained and name not in covered]
    if not dense:
        return ""
    share = sum(sizes[name] for name in dense) / sum(sizes[name] for name in names)
    return (
        f"{share:.1%} of the weights in matrices stay dense, because they are not covered: "
        f"{listed(dense)}. include=[...] names the covered ones"
    )


def _weights(model: nn.Module, shape: Sequence[int] | None) -> set[str]:
    """What is covered by default."""
    matrices: set[int] = set()
    for module in model.modules():
        matrices |= {id(p) for p in _matrices_of(module)}
    known = {name for name, p in model.named_parameters() if id(p) in matrices}
    return known | {each.use.name for each in _weight_products(model, shape) if each.use}


def _matrices_of(module: nn.Module) -> Iterator[nn.Parameter]:
    for name, parameter in module._parameters.items():
        kind = (
            (isinstance(module, KINDS) and name == "weight")
            or (isinstance(module, nn.MultiheadAttention) and name in ATTENTION)
            or (isinstance(module, RECURRENT) and name.startswith("weight_"))
        )
        if kind and parameter is not None:
            yield parameter


def _weight_products(model: nn.Module, shape: Sequence[int] | None) -> list[Product]:
    """The products of activations with matrices that are parameters, or made of parameters."""
    matrices = {name for name, p in model.named_parameters() if p.dim() > 1}
    if shape is None or not matrices:
        return []
    found = []
    for each in trace(model, shape).products:
        # a weight that a layer computes has no `use`, but the parameters that it is made of
        names = {each.use.name} if each.use else each.roots
        if each.activations and names & matrices:
            found.append(each)
    return found


# -- the layers of a model --------------------
def layers_of(net: Net) -> list[list[str]]:
    """The names of parameters and running statistics, layer by layer, in the model's order. A layer
    begins with a covered weight; what comes before the first one belongs to its layer."""
    statistics = [name for name, _ in net.model.named_buffers() if name.endswith("running_mean")]
    known = {*net.parameters(), *statistics}
    found: list[list[str]] = [[]]
    for name in net.model.state_dict():
        if name in net.weights and any(other in net.weights for other in found[-1]):
            found.append([])
        if name in known:
            found[-1].append(name)
    return found


def last_matrix(net: Net) -> str:
    """The weight of the output layer: the last parameter that is more than a vector and that the
    model has not frozen."""
    matrices = [name for name, p in net.model.named_parameters() if p.dim() > 1]
    return [name for name in matrices if name not in net.fixed][-1]


def last_layer(net: Net) -> str:
    """The module of the output layer's weight."""
    return last_matrix(net).rpartition(".")[0]


def parameters_of(net: Net, module: str) -> list[str]:
    return [name for name in net.parameters() if name.rpartition(".")[0] == module]


def matching(
    patterns: Iterable[str], names: Iterable[str], key: str, what: str = "parameter"
) -> list[str]:
    """The names in which one of these regular expressions is found, pattern by pattern. UserError,
    which names the key, if one is not valid or matches none."""
    names, found = list(names), list[str]()
    for pattern in patterns:
        try:
            hits = [name for name in names if re.search(pattern, name)]
        except re.error as error:
            raise UserError(f"{key}: {pattern!r} is not a regular expression ({error})") from None
        if not hits:
            raise UserError(f"{key}: {pattern!r} matches no {what}. {nearest(pattern, names)}")
        found += hits
    return found
