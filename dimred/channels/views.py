"""Where views of a tensor move its channels.

`places` is what a view makes of the positions of the channels: it has the shape of the result, and
each entry is the number of the channel that it belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dimred.channels.identities import Along


class Parts(NamedTuple):
    """Channels of several positions each. owner: the part of every position."""

    axis: int
    ids: Tensor
    owner: Tensor


def follows(name: str, places: Tensor, ids: Tensor, args: Sequence[Any]) -> Along | None:
    """The channels of the result of the view `name`, if they are in one dimension. None if some
    are left out or in another order, or if the model fixes their number."""
    axes = varying(places)
    if len(axes) != 1:
        return None
    (axis,) = axes
    line = places.movedim(axis, 0).flatten(1)[:, 0] if places.dim() > 1 else places
    if torch.equal(line, torch.arange(len(ids))):
        return Along(axis, ids)
    # Flattened: the pixels of a channel, or the numbers of a head. (N, 64 * 7 * 7) is written by
    # many models of images.
    flat = name == "flatten" or (places.dim() == 2 and axis == 1) or free(name, args) == axis
    whole = len(line.unique()) == len(ids)
    return Along(axis, ids[line]) if flat and whole and name in DIVIDE else None


def divided(name: str, places: Tensor, ids: Tensor, args: Sequence[Any]) -> Parts | None:
    """A dimension that a view divides into several: the one whose size is written -1 may become
    smaller. What belongs to one of its positions is one channel."""
    axis = free(name, args, places.dim())
    if axis is None or len(varying(places)) < 2:
        return None
    owner = torch.full((len(ids),), -1)
    rows = places.movedim(axis, 0).flatten(1)
    for row, members in enumerate(rows):
        if (owner[members] >= 0).any():
            return None
        owner[members] = row
    return Parts(axis, ids[rows[:, 0]], owner)


#: views that change the number of dimensions by their sizes
DIVIDE = ("view", "reshape", "unflatten", "flatten")


def free(name: str, args: Sequence[Any], dims: int = 0) -> int | None:
    """The dimension of the result whose size is written -1 in the arguments of a view."""
    if name not in DIVIDE or name == "flatten" or not args:
        return None
    sizes, first = args, 0
    if name == "unflatten":  # names the sizes of the new dimensions alone
        sizes = args[1]
        first = args[0] % (dims + 1 - len(sizes))
    elif isinstance(args[0], (tuple, list)):
        sizes = args[0]
    return first + list(sizes).index(-1) if -1 in sizes else None


def varying(places: Tensor) -> list[int]:
    """The dimensions along which the channel changes."""
    firsts = [places.narrow(axis, 0, 1).expand_as(places) for axis in range(places.dim())]
    return [axis for axis, first in enumerate(firsts) if not torch.equal(places, first)]
