"""The smaller model that remains after structured pruning."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from dimred.channels.identities import STAYS
from dimred.channels.selection import Channels
from dimred.channels.tracing import tensors_of
from dimred.net import Net


def without_channels(net: Net, images: Tensor) -> nn.Module:
    """A smaller plain model with the same logits: without the channels that no weight uses.

    images: any number of them; only their shape matters. The buffers and the mode are those of the
    net's model."""
    channels, values = Channels(net, images), net.effective_weights()
    kept = channels.read(values)
    model = copy.deepcopy(net.model)
    names = {id(tensor): name for name, tensor in tensors_of(model)}
    small: dict[str, Tensor] = {}
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for key, tensor in table.items():
                if tensor is not None:
                    name = names[id(tensor)]
                    if name not in small:  # a tied weight is cut once
                        rows = _left(channels.rows.get(name), kept)
                        columns = _left(channels.columns.get(name), kept)
                        small[name] = _cut(tensor, values.get(name, tensor), rows, columns)
                    table[key] = small[name]  # type: ignore[assignment]
    for module in model.modules():
        _resize(module)
    return model


def _left(numbers: Tensor | None, kept: Tensor) -> Tensor | None:
    """The indices that remain, given the channel of each; None for all of them."""
    return None if numbers is None else (numbers == STAYS) | kept[numbers]


def _cut(tensor: Tensor, value: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    cut = value.detach()
    cut = cut if rows is None else cut[rows]
    cut = (cut if columns is None else cut[:, columns]).clone()
    return nn.Parameter(cut) if isinstance(tensor, nn.Parameter) else cut


def _resize(module: nn.Module) -> None:
    """Set the size attributes of a layer to the shapes of its tensors."""
    owner = getattr(module, "weight", None)
    owner = getattr(module, "running_mean", None) if owner is None else owner
    if owner is None:
        return
    groups = getattr(module, "groups", 1)
    # depthwise: the number of filters of each channel does not change
    if groups > 1 and groups == module.in_channels:
        groups = groups * owner.shape[0] // module.out_channels
    sizes = {
        "groups": groups,
        "out_channels": len(owner),
        "out_features": len(owner),
        "num_features": len(owner),
    }
    if owner.dim() > 1:
        sizes |= {"in_channels": owner.shape[1] * groups, "in_features": owner.shape[1]}
    for attribute in sizes.keys() & vars(module).keys():
        setattr(module, attribute, sizes[attribute])
