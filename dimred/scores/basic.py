"""Simple scores, and the random numbers and gradients that all scores need."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimred.net import Net
from dimred.net.buffers import buffers_kept
from dimred.net.coordinates import Supports
from dimred.net.plain_products import plain_kernels
from dimred.net.seeded import generators_kept

Batch = tuple[Tensor, Tensor]
Scores = Mapping[str, Tensor]
#: values of all covered weights, in their shapes
Thetas = Mapping[str, Tensor]


def random_scores(net: Net, purpose: str = "") -> dict[str, Tensor]:
    """Standard normal scores. They depend on the same as `generator`, so they are equal on every
    machine and after a resume. Different purposes give independent scores."""
    # drawn on the CPU: a GPU's generator gives other numbers
    draws = generator(net, purpose)
    return {
        name: torch.randn(w.param.shape, generator=draws).to(w.param.device)
        for name, w in net.weights.items()
    }


def generator(net: Net, purpose: str) -> torch.Generator:
    """A generator on the CPU, seeded by the net's seed, the number of changes of its supports, and
    the purpose."""
    key = f"{net.seed}/{net.support_version}/{purpose}".encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:7], "little"))


def magnitude(net: Net) -> dict[str, Tensor]:
    """|psi|, and -inf at untrained weights: Janowsky 1989; Han et al., NeurIPS 2015
    (arXiv:1506.02626)."""
    out = {}
    with torch.no_grad():
        for name, w in net.weights.items():
            size = w.psi.abs()
            if w.support is not None:
                none = w.param.new_full((w.size,), -torch.inf)
                size = none.index_copy_(0, w.support, size)
            out[name] = size.view(w.param.shape)
    return out


def lamp(net: Net) -> dict[str, Tensor]:
    """theta^2 over the sum of theta^2 of all weights of its layer that are at least as large,
    itself included: the relative distortion of the layer if the weight is pruned. Lee, Park, Mo,
    Ahn, Shin, ICLR 2021 (arXiv:2010.07611), eq. 4.

    The largest weight of every layer scores 1, so that no layer loses all of its weights. Equal
    weights rank by position."""
    scores = {}
    for name, theta in net.dense_weights().items():
        # from the largest down, the cumulative sum is that of all weights at least as large; a
        # stable sort ranks equal weights by position
        square, order = theta.reshape(-1).double().square().sort(descending=True, stable=True)
        # on the host: a GPU adds up in another order in every run
        sums = square.cpu().cumsum(0).to(square.device)
        share = square / sums.clamp_min(torch.finfo(torch.float64).tiny)
        scores[name] = torch.empty_like(share).index_copy_(0, order, share).view(theta.shape)
    return trained_only(net, scores)


def snip(net: Net, batch: Batch) -> dict[str, Tensor]:
    """Connection sensitivity |theta * dL/dtheta|.

    Lee et al., ICLR 2019 (arXiv:1810.02340), eq. 4-5.

    The paper divides by the sum over all connections, which does not change the ranking. The
    model's mode does not change: before training, BatchNorm is in training mode."""
    grads = gradients(net, batch)
    return trained_only(
        net, {name: (theta * grads[name]).abs() for name, theta in net.dense_weights().items()}
    )


def gradients(
    net: Net,
    batch: Batch,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    at: Thetas | None = None,
) -> dict[str, Tensor]:
    """Dense dL/dtheta of the mean loss of one batch, for every covered weight, trained or not. `at`
    gives the weights at which the gradient is taken; by default, the net's own."""
    images, labels = batch
    thetas = {
        name: theta.detach().clone().requires_grad_()
        for name, theta in (at or net.dense_weights()).items()
    }
    # a copy of theta is differentiated, so untrained weights have gradients and psi gets none
    with untouched(net.model), net.weights_in_place(thetas) as model:
        grads = torch.autograd.grad(
            loss(model(images), labels), list(thetas.values()), materialize_grads=True
        )
    return dict(zip(thetas, grads, strict=True))


def masked(values: Thetas, supports: Supports, fill: float = 0.0) -> dict[str, Tensor]:
    """The values, with `fill` outside the supports."""
    out = {}
    for name, value in values.items():
        support = supports[name]
        if support is not None:
            flat = value.new_full((value.numel(),), fill)
            flat = flat.index_copy_(0, support, value.reshape(-1)[support])
            value = flat.view(value.shape)
        out[name] = value
    return out


def permuted(thetas: Thetas, draws: torch.Generator) -> dict[str, Tensor]:
    """The values of each weight in random order. If the values of a layer are independent and
    identically distributed, this is a new draw from their distribution, whatever it is."""
    out = {}
    for name, theta in thetas.items():
        order = torch.randperm(theta.numel(), generator=draws).to(theta.device)
        out[name] = theta.reshape(-1)[order].view(theta.shape)
    return out


def trained_only(net: Net, scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """The scores, with -inf where a weight is not trained."""
    return masked(scores, net.supports, -torch.inf)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Restore buffers (BatchNorm statistics) and random states at the end of the block. In it,
    attention and recurrent layers use plain kernels, which have second derivatives."""
    devices = [b.device for b in model.parameters() if b.device.type == "cuda"][:1]
    with buffers_kept(model), generators_kept(devices), plain_kernels(model):
        yield
