"""Deep rewiring: a random walk of signed connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dimred.fields import NotNegative
from dimred.methods.random_start import RandomStart
from dimred.net import Net
from dimred.net.transforms import Transform
from dimred.scores import generator
from dimred.select.rewiring import grow_random
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class DeepR(RandomStart):
    """Deep rewiring: each weight has a fixed sign; a weight that would change sign is dropped, and
    a random one is grown in its place.

        theta = sign * max(0, sign * psi);  psi <- psi - lr (dL/dtheta + l1 sign + noise * N(0, 1))

    The sign is that of the initial value. A grown weight starts at zero and trains from the next
    step on. Dense layers train as usual. The number of trained weights of each layer is the same at
    every step.

    Trains: d weights, not always the same; stores: their positions (during training the seed of the
    signs, too); needs: nothing.

    Bellec, Kappel, Maass, Legenstein, ICLR 2018 (arXiv:1711.05136); the scales of l1 and noise as
    in the official code."""

    l1: NotNegative = 1e-5  # alpha, the strength of the L1 penalty
    noise: NotNegative = 1e-5  # standard deviation of a step of the random walk / lr

    def run(self, net: Net, train: Train) -> None:
        self.keep_random(net)
        # dense layers have no untrained weights to grow, so their signs are not fixed
        signs = {
            name: Signed(net.initial()[name].to(w.param))
            for name, w in net.weights.items()
            if w.support is not None
        }
        net.add_transforms(signs)
        for t in train.steps():
            # weights that the previous step has moved across zero
            dormant = deactivate(net, signs)
            self.walk(net, signs, t, train.recipe.lr_at(t, len(train)))
            # after the walk: a new weight stays at zero until it has a gradient
            activate(net, dormant)
        # no pause follows the last step: replace the weights that it has moved across zero
        activate(net, deactivate(net, signs))
        net.keep(net.supports, merge=True)

    @torch.no_grad()
    def walk(self, net: Net, signs: Mapping[str, Signed], t: int, lr: float) -> None:
        """One step of the random walk and of the L1 penalty, on the trained weights."""
        # drawn by the number of the step, so that a resumed run repeats the same walk
        draws = generator(net, f"walk {t}")
        for name, each in signs.items():
            w = net.weights[name]
            w.psi.add_(
                torch.randn(w.dim, generator=draws, dtype=w.psi.dtype).to(w.psi.device),
                alpha=lr * self.noise,
            )
            w.psi.sub_(w.gather(each.sign.view(-1)), alpha=lr * self.l1)


class Signed(Transform):
    """theta where it has the sign of the initial weight, zero elsewhere. The signs are not saved:
    they follow from the initial weights."""

    sign: Tensor

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.register_buffer(
            "sign", torch.where(initial < 0, -1.0, 1.0).to(initial.dtype), persistent=False
        )

    def forward(self, theta: Tensor) -> Tensor:
        # >= and not >: at zero there is a gradient, so that grown weights train
        return theta * (theta.detach() * self.sign >= 0)


def deactivate(net: Net, signs: Mapping[str, Signed]) -> dict[str, int]:
    """Stop training the weights that have changed sign. Returns their number in each layer."""
    kept, counts = {}, {}
    for name, each in signs.items():
        w = net.weights[name]
        alive = w.psi.detach() * w.gather(each.sign.view(-1)) >= 0
        count = w.dim - int(alive.sum())
        if count and w.support is not None:
            kept[name], counts[name] = w.support[alive], count
    if kept:
        net.keep(kept)
    return counts


def activate(net: Net, counts: Mapping[str, int]) -> None:
    """Train this number of further random weights in each layer, starting from zero."""
    if counts:
        net.keep(grow_random(net, {name: net.weights[name].support for name in counts}, counts))
