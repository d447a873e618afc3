"""Numbers by which the nets of several processes are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dimred.net.net import Net

#: odd numbers of 61 and 62 bits
MIXERS = (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9)
WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def fingerprints(net: Net) -> dict[str, int]:
    """Of the support and the values of every parameter, computed where these lie."""
    sums = []
    parameters = net.parameters()
    for name, parameter in parameters.items():
        found = fingerprint(parameter)
        weight = net.weights.get(name)
        if weight and weight.support is not None:
            found = found + fingerprint(weight.support + 1)
        sums.append(found)
    return dict(zip(parameters, torch.stack(sums).tolist(), strict=True)) if sums else {}


def fingerprint(values: Tensor) -> Tensor:
    """A number (int64) that changes with each bit of the values and with their order."""
    if values.is_complex():
        values = torch.view_as_real(values)
    bits = values.detach().reshape(-1).view(WHOLE[values.element_size()]).to(torch.int64)
    mixed = bits + torch.arange(len(bits), device=bits.device) * MIXERS[0]
    mixed = (mixed ^ (mixed >> 31)) * MIXERS[1]
    return (mixed ^ (mixed >> 29)).sum()
