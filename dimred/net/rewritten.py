"""Weights that are written when they are used, and freed afterwards: training state of size d.

A weight of which a part is trained needs a dense theta only while a layer multiplies by it. So its
buffer is given back: a module that asks for the weight gets a theta written for it, and autograd,
in place of the theta that it would save, saves how to write it again for the backward pass. The
operations are those on kept weights, so the numbers have the same bits.

Where all of a weight trains, psi is the weight and nothing can be freed. Where the base is not zero
(FreezeNet), the base is stored, and theta is a copy of it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from dimred.net.coordinates import Base, Coordinates, Support
from dimred.net.forward import in_channels_last

if TYPE_CHECKING:
    from dimred.net.parametrised import ParametrisedModel

Write = Callable[[], Tensor]


class Rewritten(Coordinates):
    """A weight that has a buffer only while all of it trains."""

    def __init__(self, w: Coordinates, in_half: bool = False) -> None:
        """in_half: autocast casts the weight wherever it is used."""
        self.param, self.hook, self.in_half = w.param, w.hook, in_half
        self.set(w.dense(), w.support, w.base)

    @torch.no_grad()
    def set(self, theta: Tensor, support: Support, base: Base) -> None:
        theta = theta.detach().to(self.param, copy=True).view(-1)
        if support is not None and support.numel() == theta.numel():
            support = None
        self.support, self.base = support, base
        #: the base, in flat form; None if it is zero
        self.others: Tensor | None = None
        if support is None:
            self.param.data = theta.view(self.param.shape)
            self.psi = nn.Parameter(self.param.detach().view(-1))
            return
        self.support = support = support.to(theta.device, torch.int64)
        self.psi = nn.Parameter(theta[support])
        self.param.data = absent(self.param)
        others = theta.index_fill_(0, support, 0.0)
        if others.any():
            self.others = others

    def theta(self) -> Tensor:
        if self.support is None:
            return super().theta()
        theta = self.writer()()
        if self.hook and theta.requires_grad:
            theta.register_hook(self.hook)
        return theta

    def writer(self) -> Write:
        """Writes the present theta: also later, while psi has its present values."""
        psi, support, others, shape = self.psi, self.support, self.others, self.param.shape
        size, version = self.size, psi._version
        assert support is not None

        def write() -> Tensor:
            if psi._version != version:
                raise RuntimeError(
                    "a trained weight has been changed in place between the forward and the "
                    "backward pass"
                )
            if not psi.numel() and others is not None:
                return others.view(shape)
            theta = psi.new_zeros(size, requires_grad=False) if others is None else others.clone()
            return theta.index_copy_(0, support, psi).view(shape)

        return write

    @torch.no_grad()
    def dense(self) -> Tensor:
        """theta, flat and detached (D)."""
        return self.theta().detach().view(-1)

    def stored(self) -> list[Tensor]:
        return [t for t in (self.support, self.others) if t is not None]


def absent(weight: Tensor) -> Tensor:
    """A tensor of this shape without memory. Each of its entries is nan, so that a use of it does
    not go unnoticed."""
    return torch.full((1,), torch.nan, dtype=weight.dtype, device=weight.device).expand(
        weight.shape
    )


@contextmanager
def buffers_there(weights: Mapping[str, Coordinates]) -> Iterator[None]:
    """For what reads a model's own parameters: within the block they have their values."""
    missing = absentees(weights).values()
    for w in missing:
        w.param.data = w.dense().view(w.param.shape)
    try:
        yield
    finally:
        for w in missing:
            w.param.data = absent(w.param)


def absentees(weights: Mapping[str, Coordinates]) -> dict[str, Rewritten]:
    """The weights that have no buffer now."""
    found = {}
    for name, w in weights.items():
        if isinstance(w, Rewritten) and w.support is not None:
            found[name] = w
    return found


# -- the forward and the backward pass --------------------
class Packed(NamedTuple):
    """How autograd saves a view of a written weight."""

    again: Write
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class Writer:
    """Writes weights for modules that read them, and again for the backward pass."""

    def __init__(self, net: ParametrisedModel, channels_last: bool) -> None:
        self.net, self.channels_last = net, channels_last
        # the weights that may still exist, by the address of their memory
        self._there: dict[int, tuple[weakref.ref[Tensor], Write]] = {}

    def write(self, name: str, w: Rewritten) -> Tensor:
        """The weight that a module is to use."""
        again, form = w.writer(), self._form(w)
        theta = w.theta()
        if name in self.net.transforms or name in self.net.bases:
            # autograd saves what E computes, too
            self._remember(theta, again)
            return form(self.net.effective(name, theta))
        weight = form(theta)
        self._remember(weight, lambda: form(again()))
        return weight

    def _form(self, w: Rewritten) -> Callable[[Tensor], Tensor]:
        """The layout and the number format in which a weight is used."""
        device = w.param.device.type
        half = w.in_half and torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if half else w.param.dtype

        def form(weight: Tensor) -> Tensor:
            return (in_channels_last(weight) if self.channels_last else weight).to(dtype)

        return form

    def _remember(self, weight: Tensor, again: Write) -> None:
        self._there[_address(weight)] = weakref.ref(weight), again

    def pack(self, tensor: Tensor) -> Tensor | Packed:
        """What autograd saves in place of a tensor."""
        if tensor.layout != torch.strided:
            return tensor
        weight, again = self._there.get(_address(tensor), (None, None))
        # what lies at the address of a weight that is gone is another tensor
        if weight is None or again is None or weight() is None:
            return tensor
        offset = int(tensor.storage_offset())
        return Packed(again, tensor.shape, tensor.stride(), offset)

    @staticmethod
    def unpack(saved: Tensor | Packed) -> Tensor:
        if isinstance(saved, Tensor):
            return saved
        # where the backward pass is differentiated, this is differentiable in psi
        return saved.again().as_strided(saved.size, saved.stride, saved.offset)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Slots(dict[str, Any]):
    """A module's parameters by name. Some are made anew whenever the module reads them."""

    def __init__(self, parameters: Mapping[str, Any], made: Mapping[str, Write]) -> None:
        super().__init__(parameters)
        self._made = made

    def __getitem__(self, key: str) -> Any:
        return self._made[key]() if key in self._made else super().__getitem__(key)


@contextmanager
def written_when_read(net: ParametrisedModel, channels_last: bool) -> Iterator[None]:
    """Within the block, the modules of a net get the weights that have no buffer when they read
    them. A backward pass may come after it."""
    writer = Writer(net, channels_last)
    writes = {id(w.param): partial(writer.write, n, w) for n, w in absentees(net.weights).items()}
    changed = []
    for module in net.model.modules():
        own = module._parameters
        made = {key: writes[id(p)] for key, p in own.items() if id(p) in writes}
        if made:
            changed.append((module, own))
            module._parameters = Slots(own, made)
    try:
        with saved_tensors_hooks(writer.pack, writer.unpack):
            yield
    finally:
        for module, own in changed:
            module._parameters = own
