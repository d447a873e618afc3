"""Given masks: train the weights of a mask that another run has found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from dimred.errors import UserError
from dimred.fields import Checked
from dimred.net import Net
from dimred.storage.masks import Masks, read_masks
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class FromMask(Checked):
    """Train the weights of another run's mask, from the initial values of this run's seed.

        support = {i: mask_i},  theta_i = 0 elsewhere, or its initial value

    mask: the folder of a run, or a file such as its masks.npz, with an array for each covered
    weight, under its name: 1 (or true) where the weight is trained, 0 elsewhere. The identity of a
    run depends on the content of the mask, not on its path.

    Trains: d weights; stores: their positions; needs: nothing.

    Morcos, Yu, Paganini, Tian, NeurIPS 2019 (arXiv:1906.02773), who transfer lottery tickets to
    other data sets and optimisers."""

    mask: str
    base: Literal["zero", "init"] = "zero"

    def run(self, net: Net, train: Train) -> None:
        masks = read_masks(Path(self.mask).expanduser())
        require_fit(masks, net, self.mask)
        device = next(net.model.parameters()).device
        net.keep(
            {
                name: torch.from_numpy(mask).view(-1).nonzero().view(-1).to(device)
                for name, mask in masks.items()
            },
            base=self.base,
        )
        train()


def require_fit(masks: Masks, net: Net, path: str) -> None:
    """UserError unless the masks have the names and shapes of the weights that this net covers."""
    wrong = []
    for name, w in net.weights.items():
        if name not in masks:
            wrong.append(f"the mask has no {name}")
        elif masks[name].shape != w.param.shape:
            masked, weight = ("x".join(map(str, s)) for s in (masks[name].shape, w.param.shape))
            wrong.append(f"{name} is {masked} in the mask and {weight} in this network")
    wrong += [f"this network covers no {name}" for name in masks if name not in net.weights]
    if wrong:
        more = f", and {len(wrong) - 1} more" if wrong[1:] else ""
        raise UserError(
            f"method.mask={path} is of another network ({wrong[0]}{more}). Choose the model, the "
            "image size, include and exclude of the mask's run, or a mask of this network"
        )
