"""Scores by second derivatives: Hessian-gradient products, and derivatives through a few training
steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dimred.net import Net
from dimred.scores.basic import Batch, trained_only, untouched

#: yields the batches; `train.rounds` also shows a bar
Rounds = Callable[[Sequence[Batch]], Iterator[Batch]]


def grasp(net: Net, batch: Batch, temperature: float = 200.0) -> dict[str, Tensor]:
    """theta * (H g): the decrease of the squared gradient norm, to first order and up to a factor,
    if the weight is pruned. The largest are kept.

    Wang, Zhang, Grosse, ICLR 2020 (arXiv:2002.07376), eq. 8. Their score is the negative of this,
    and they prune the largest.
    """
    return gradient_flow(net, [batch], temperature)


def gradient_flow(
    net: Net, batches: Sequence[Batch], temperature: float, rounds: Rounds = iter
) -> dict[str, Tensor]:
    """theta * (H g), with gradient g and Hessian H summed over batches, for the cross-entropy of
    logits / temperature. Computed in float64, because H g is tiny at a high temperature.

    `rounds` yields the batches and may report progress; several batches take two passes."""
    twin = copy.deepcopy(net).to(dtype=torch.float64)
    thetas = {name: theta.clone().requires_grad_() for name, theta in twin.dense_weights().items()}
    weights = list(thetas.values())

    def gradient(batch: Batch, graph: bool) -> Sequence[Tensor]:
        with twin.weights_in_place(thetas) as model:
            loss = F.cross_entropy(model(batch[0].double()) / temperature, batch[1])
        return torch.autograd.grad(loss, weights, create_graph=graph, materialize_grads=True)

    several = len(batches) > 1
    with untouched(twin.model):
        first = [gradient(batch, graph=False) for batch in rounds(batches)] if several else []
        totals = [torch.stack(parts).sum(0) for parts in zip(*first, strict=True)]
        curved = [torch.zeros_like(weight) for weight in weights]
        for batch in rounds(batches):
            grads = gradient(batch, graph=True)
            pairs = zip(totals or grads, grads, strict=True)  # a single batch is its own total
            # d/dtheta <stop_gradient(g), g(theta)> = H g: the Hessian is never formed
            along = torch.stack([(total.detach() * grad).sum() for total, grad in pairs]).sum()
            products = torch.autograd.grad(along, weights, materialize_grads=True)
            torch._foreach_add_(curved, products)
    return trained_only(
        net,
        {
            name: (theta * product).detach()
            for (name, theta), product in zip(thetas.items(), curved, strict=True)
        },
    )


def prospr(
    net: Net,
    batches: Sequence[Batch],
    lr: float,
    first_order: bool = False,
    others: bool = True,
    rounds: Rounds = iter,
) -> dict[str, Tensor]:
    """|dL/dc| of the last batch at c = 1, after a step of SGD on each of the other batches,
    starting from the weights theta * c.

    Alizadeh et al., ICLR 2022 (arXiv:2202.08132). With `others`, parameters that are not covered
    take the steps, too. With `first_order` the updates are constants, without second derivatives.
    `rounds` yields the batches and may report progress.
    """
    twin = copy.deepcopy(net)
    gates = {
        name: torch.ones_like(theta, requires_grad=True)
        for name, theta in twin.dense_weights().items()
    }
    moving: dict[str, Tensor] = {
        name: theta * gates[name] for name, theta in twin.dense_weights().items()
    }
    if others:
        named = dict(twin.model.named_parameters())
        moving |= {
            name: p for name, p in twin.uncovered.items() if name in named and p.requires_grad
        }

    def grads(batch: Batch, of: Sequence[Tensor], graph: bool) -> tuple[Tensor, ...]:
        with twin.weights_in_place(moving) as model:
            loss = F.cross_entropy(model(batch[0]), batch[1])
        # the weights of an inner step depend on the gates: later steps need the graph again
        return torch.autograd.grad(
            loss, list(of), create_graph=graph, retain_graph=True, materialize_grads=True
        )

    with untouched(twin.model):
        for t, batch in enumerate(rounds(batches), start=1):
            if t == len(batches):
                last = grads(batch, list(gates.values()), False)
                continue
            steps = grads(batch, list(moving.values()), not first_order)
            moving = {
                name: value - lr * step
                for (name, value), step in zip(moving.items(), steps, strict=True)
            }
    return trained_only(net, {name: grad.abs() for name, grad in zip(gates, last, strict=True)})


def halves_by_class(batch: Batch) -> list[Batch]:
    """Two halves of a batch sorted by class: the first half has the first classes."""
    images, labels = batch
    order = labels.argsort(stable=True)
    middle = len(order) // 2
    return [(images[half], labels[half]) for half in (order[:middle], order[middle:])]


def balanced(batch: Batch, per_class: int) -> Batch:
    """The first `per_class` examples of every class."""
    images, labels = batch
    same = labels[:, None] == labels[None, :]
    chosen = same.tril().sum(1) <= per_class
    return images[chosen], labels[chosen]
