"""Which weights of a model are covered: pruned or frozen in part, and counted.

By default these are the weights that multiply activations in a matrix product or a convolution.
Those of Linear, Conv, attention and recurrent layers are known by their names; others (matrices of
one's own, weights that a layer makes of a parameter, such as weight_norm's) are found by executing
the model, if the shape of its images is given. Embeddings, position embeddings, class tokens, norms
and biases are added or scale, and are not covered.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence

from torch import nn

from dimred.errors import UserError, nearest
from dimred.net.products import Product, trace

KINDS = (nn.Linear, nn.modules.conv._ConvNd)
ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
RECURRENT = (nn.RNNBase, nn.RNNCellBase)


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
    chosen = _matching(include, names, "include") if include else _weights(model, shape)
    chosen = chosen - _matching(exclude, names, "exclude")
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
    names = {
        each.use.name if each.use else max(each.roots, key=sizes.__getitem__)
        for each in _weight_products(model, shape)
    }
    dense = [name for name in sizes if name in names & trained and name not in covered]
    if not dense:
        return ""
    share = sum(sizes[name] for name in dense) / sum(sizes[name] for name in names)
    more = f" and {len(dense) - 3} more" if len(dense) > 3 else ""
    return (
        f"{share:.1%} of the weights in matrices stay dense, because they are not covered: "
        f"{', '.join(dense[:3])}{more}. include=[...] names the covered ones"
    )


def _weights(model: nn.Module, shape: Sequence[int] | None) -> set[str]:
    """What is covered by default."""
    matrices = {id(p) for module in model.modules() for p in _matrices_of(module)}
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
    return [
        each
        for each in trace(model, shape).products
        if each.activations and (each.use.name in matrices if each.use else each.roots & matrices)
    ]


def _matching(patterns: list[str], names: list[str], key: str) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        try:
            hits = {name for name in names if re.search(pattern, name)}
        except re.error as error:
            raise UserError(f"{key}: {pattern!r} is not a regular expression ({error})") from None
        if not hits:
            raise UserError(f"{key}: {pattern!r} matches no parameter. {nearest(pattern, names)}")
        found |= hits
    return found
