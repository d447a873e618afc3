"""The matrix products and convolutions of a model, found by executing it.

Weights are the parameters that multiply activations. The classes of modules do not tell which
those are: attention slices one matrix in three, a function may use a layer's weight from outside,
and a parametrization computes it from other parameters. So tensors are identified by their memory:
an operand that shares memory with a parameter is that parameter or a part of it, and one that was
computed from parameters alone belongs to these.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dimred.net.eager import DispatchMode
from dimred.net.flop_formulas import OPERANDS, flops_of
from dimred.net.outputs import logits_in
from dimred.net.plain_products import plain_kernels
from dimred.net.seeded import generators_kept

aten = torch.ops.aten

#: operations whose result is zero wherever their first argument is
KEEP_ZEROS = {aten.mul, aten.div, aten.neg, aten.clone, aten._to_copy}


class Use(NamedTuple):
    """The entries of a parameter that a product multiplies."""

    name: str
    entries: int  # how many, each as often as it is repeated
    where: tuple[Any, Any, int] | None  # size, stride and offset; None for the whole parameter


class Product(NamedTuple):
    flops: int
    # None if neither operand is a weight, or if zeros of the weight are not zeros of the operand
    use: Use | None
    roots: frozenset[str]  # the parameters that the weight is made of
    other_trains: bool  # the backward pass needs the gradient of the other operand
    weight_trains: bool
    activations: bool  # computed for every example; else once a batch, of weights alone


class Origin(NamedTuple):
    """What a tensor was computed from."""

    activations: bool
    roots: frozenset[str]  # if from parameters alone: from which
    zeros_of: str | None  # the parameter whose zeros are zeros of this tensor, and no others
    fresh: bool = False  # from no tensor, such as the first state of a recurrent layer


CONSTANT, ACTIVATION = Origin(False, frozenset(), None), Origin(True, frozenset(), None)
FRESH = Origin(False, frozenset(), None, fresh=True)


class Trace(DispatchMode):
    """Records every product of a forward pass, and the FLOPs of a backward pass."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.products: list[Product] = []
        self.examples, self.backward, self.backward_flops = len(images), False, 0
        # sorted by address: what lies between one start and the next is part of a parameter
        parameters = [(p.data_ptr(), name, p) for name, p in model.named_parameters() if p.numel()]
        self._parameters = sorted(parameters, key=lambda each: each[0])
        self._starts = [start for start, _, _ in self._parameters]
        self._named = {name: p for _, name, p in self._parameters}
        self._origins = {_memory(images): ACTIVATION}
        self._held: list[Tensor] = [images]  # keeps memory from being used again

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        flops = flops_of(func, args, kwargs, out)
        if self.backward:
            self.backward_flops += flops
            return out
        operands = [args[i] for i in OPERANDS.get(func.overloadpacket, ())]
        # what is skipped is on `meta` (prefix.py)
        if flops and not any(each.is_meta for each in operands):
            self.products.append(self._product(flops, operands))
        self._follow(func, out, (args, kwargs))
        return out

    def _product(self, flops: int, operands: Sequence[Tensor]) -> Product:
        if not operands:  # a fused kernel of activations
            return Product(flops, None, frozenset(), False, False, True)
        origins = [self._origin(t) for t in operands]
        # layers multiply x @ W or convolve x with W; only a product written W @ x has W first
        weight = 1
        if origins[0].roots and not origins[1].roots:
            weight = 0
        origin, tensor = origins[weight], operands[weight]
        trains = [t.requires_grad and torch.is_grad_enabled() for t in operands]
        use = self._use(origin.zeros_of, tensor) if origin.zeros_of else None
        return Product(
            flops,
            use,
            origin.roots,
            trains[1 - weight],
            trains[weight],
            any(each.activations or each.fresh for each in origins),
        )

    def _use(self, name: str, tensor: Tensor) -> Use:
        parameter = self._named[name]
        own = _memory(tensor) == _memory(parameter)
        if not own or tensor.numel() == parameter.numel():
            return Use(name, tensor.numel(), None)
        offset = (tensor.data_ptr() - parameter.data_ptr()) // tensor.element_size()
        return Use(name, tensor.numel(), (tuple(tensor.shape), tensor.stride(), offset))

    def _origin(self, tensor: Tensor) -> Origin:
        known = self._origins.get(_memory(tensor))
        if known:
            return known
        name = self._parameter_at(tensor)
        if name:
            return Origin(False, frozenset([name]), name)
        return CONSTANT

    def _parameter_at(self, tensor: Tensor) -> str | None:
        at = bisect_right(self._starts, tensor.data_ptr()) - 1
        if at < 0:
            return None
        start, name, parameter = self._parameters[at]
        inside = tensor.data_ptr() < start + parameter.numel() * parameter.element_size()
        return name if inside else None

    def _follow(self, func: Any, out: Any, given: Any) -> None:
        """Record the origin of new tensors and of those that were written to."""
        tensors = [t for t in tree_leaves(given) if isinstance(t, Tensor)]
        for tensor in [t for t in tree_leaves(out) if isinstance(t, Tensor) and t.numel()]:
            memory = _memory(tensor)
            known = memory in self._origins or self._parameter_at(tensor)
            if known and not func._schema.is_mutable:
                continue  # a view
            self._held.append(tensor)
            self._origins[memory] = self._merged(func, tensors, tensor)

    def _merged(self, func: Any, given: Sequence[Tensor], out: Tensor) -> Origin:
        origins = [self._origin(t) for t in given]
        if any(each.activations for each in origins):
            return ACTIVATION
        if all(each.fresh for each in origins):
            return FRESH
        roots = frozenset().union(*(each.roots for each in origins))
        return Origin(False, roots, self._zeros_kept(func, given, out))

    def _zeros_kept(self, func: Any, given: Sequence[Tensor], out: Tensor) -> str | None:
        """The parameter whose zeros are zeros of the result, of an operation on parameters."""
        if func.overloadpacket not in KEEP_ZEROS or not given:
            return None
        name = self._origin(given[0]).zeros_of
        # divided by the norms of its own rows: 0 / 0 in a row of zeros
        own_rows = len(given) > 1 and given[1].numel() > 1 and name in self._origin(given[1]).roots
        if name is None or own_rows or self._named[name].numel() != out.numel():
            return None
        return name


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def trace(
    model: nn.Module,
    shape: Sequence[int],
    backward: bool = False,
    compute: Callable[[Tensor], Tensor] | None = None,
) -> Trace:
    """The products of a model on two images of this shape, in evaluation mode, and the FLOPs of the
    backward pass for all trained parameters. The model and all generators are left unchanged.

    compute: what calls the model; then `shape` is that of its inputs."""
    parameters = list(model.parameters())
    # in the precision of the model, whose first parameter may be integer or complex
    like = next((p for p in parameters if p.is_floating_point()), torch.zeros(()))
    images = torch.zeros(2, *shape, dtype=like.dtype, device=parameters[0].device)
    seen = Trace(model, images)
    devices = [images.device] if images.is_cuda else []
    with (
        torch.set_grad_enabled(backward),
        evaluating(model),
        generators_kept(devices),
        plain_kernels(model),
        seen,
    ):
        out = logits_in((compute or model)(images))
        seen.backward = True
        # covered weights are replaced by tensors that are no parameters
        trained = []
        for module in model.modules():
            trained += [p for p in module._parameters.values() if p is not None and p.requires_grad]
        if out.requires_grad and trained:
            torch.autograd.grad(out.sum(), trained, allow_unused=True)
    return seen


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; every module gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
