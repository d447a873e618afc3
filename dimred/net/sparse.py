"""Products with the trained entries of a weight alone, in models that know nothing of it.

In a forward pass, a `SparseWeight` takes the place of a weight: a tensor of its shape that answers
F.linear and F.conv2d by the kernels of dimred.kernels. For everything else it is the dense theta,
so whatever a model does with it is right; from then on this weight stays dense.

Of a weight whose other entries are not zero (freezing), the gradient of the trained entries is
computed by these kernels, and the other products are dense.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight
from torch.utils._pytree import tree_map_only

from dimred.kernels import functions
from dimred.kernels.calls import DTYPES, LARGEST, batch_innermost, out_size
from dimred.kernels.library import library, library_name
from dimred.kernels.plan import Plan
from dimred.net.coordinates import Coordinates
from dimred.net.forward import in_channels_last

if TYPE_CHECKING:
    from dimred.net.parametrised import ParametrisedModel


class SparseArithmetic:
    """Which covered weights are multiplied sparsely: all that can be or, if `chosen` is a set,
    those of them that are in it."""

    def __init__(self) -> None:
        self.chosen: set[str] | None = None
        #: why weights are dense that could be sparse by their coordinates, as the model showed
        self.refused: dict[str, str] = {}
        #: called with each product before it is computed, if set
        self.watch: Callable[[Product], object] | None = None
        self._layers: dict[str, SparseLayer] = {}

    def weights(self, net: ParametrisedModel) -> dict[str, Tensor]:
        """What takes the places of sparse weights in a forward pass."""
        found = dict[str, Tensor]()
        for name, w in net.weights.items():
            chosen = self.chosen is None or name in self.chosen
            if chosen and not self.why_dense(net, name):
                found[name] = self._layer(name, w).weight
        return found

    def why_dense(self, net: ParametrisedModel, name: str) -> str:
        """Why a weight cannot be multiplied sparsely; empty if it can."""
        w = net.weights[name]
        if w.support is None:
            return "all of it trains"
        if not w.dim:
            return "nothing of it trains"
        if name in net.transforms or name in net.bases:
            return "it has a transform or a basis"
        return self.refused.get(name, "")

    @property
    def kernels(self) -> str:
        """The kernels of this machine: others round differently. Empty if there are none."""
        return library_name()

    def _layer(self, name: str, w: Coordinates) -> SparseLayer:
        known = self._layers.get(name)
        # another psi may have other positions
        if known is None or known.psi is not w.psi:
            known = self._layers[name] = SparseLayer(self, name, w, known)
        return known


class SparseLayer:
    """A weight with its present positions."""

    def __init__(
        self, owner: SparseArithmetic, name: str, w: Coordinates, before: SparseLayer | None
    ) -> None:
        assert w.support is not None
        self.owner, self.name, self.w = owner, name, w
        self.psi, self.support = w.psi, w.support
        known = before is not None and torch.equal(before.support, self.support)
        self.plan: Plan = before.plan if before and known else Plan.of(w.support, w.param.shape)
        self.weight = w.param.detach().as_subclass(SparseWeight)
        self.weight.layer = self

    def multiply(self, product: Product) -> Tensor:
        if why := product.why_dense():
            self.owner.refused[self.name] = why
            return product.dense()
        if self.owner.watch:
            self.owner.watch(product)
        out = product.sparse()
        if self.w.hook and out.requires_grad:
            out.register_hook(lambda grad: self._keep(product.dense_gradient(grad)))
        return out

    def _keep(self, dense_gradient: Tensor) -> None:
        if self.w.hook:
            self.w.hook(dense_gradient)


@dataclass(frozen=True)
class Product:
    """A call of F.linear or F.conv2d with a sparse weight.

    how: stride, padding and dilation of a convolution.
    """

    layer: SparseLayer
    x: Tensor
    bias: Tensor | None
    how: tuple[Any, ...] = ()
    groups: int = 1

    @property
    def is_conv2d(self) -> bool:
        return bool(self.how)

    def sparse(self) -> Tensor:
        layer, how = self.layer, [as_pair(each) for each in self.how]
        if layer.w.base != "zero":
            out = self.dense(layer.w.dense().view(layer.plan.shape))
            return functions.GradientOfEntries.apply(out, layer.psi, self.x, layer.plan, *how)
        multiply = functions.conv2d if self.is_conv2d else functions.linear
        return multiply(self.x, layer.psi, self.bias, layer.plan, *how)

    def dense(self, weight: Tensor | None = None) -> Tensor:
        """The product with theta, or another dense weight."""
        weight = self.layer.w.theta() if weight is None else weight
        if self.is_conv2d:
            stride, padding, dilation = self.how
            return F.conv2d(self.x, weight, self.bias, stride, padding, dilation, self.groups)
        return F.linear(self.x, weight, self.bias)

    def dense_gradient(self, grad: Tensor) -> Tensor:
        """The gradient of every entry of the weight, given that of the output."""
        x = self.x.detach()
        if not self.is_conv2d:
            return grad.reshape(-1, grad.shape[-1]).t() @ x.reshape(-1, x.shape[-1])
        how = [as_pair(each) for each in self.how]
        return conv2d_weight(x, self.layer.plan.shape, grad, *how)

    def trials(self, channels_last: bool) -> list[Callable[[], None]]:
        """The product and its gradients, dense and sparse, each with activations in a layout that
        suits it."""

        def plain(tensor: Tensor) -> Tensor:
            if channels_last and tensor.dim() == 4:
                return in_channels_last(tensor)
            return tensor.contiguous()

        x = self.x.detach()
        dense = sparse = replace(self, x=plain(x))
        if self.layer.w.base == "zero":
            sparse = replace(self, x=batch_innermost(x) if x.dim() in (2, 4) else x.contiguous())
        return [
            dense.trial(lambda: dense.dense(plain(self.layer.w.theta())), self.x.requires_grad),
            sparse.trial(sparse.sparse, self.x.requires_grad),
        ]

    def trial(self, multiply: Callable[[], Tensor], needs_input: bool) -> Callable[[], None]:
        self.x.requires_grad_(needs_input)
        inputs = [self.x, self.layer.psi, *([] if self.bias is None else [self.bias])]
        wanted = [each for each in inputs if each.requires_grad]

        def work() -> None:
            out = multiply()
            # not by grad_outputs: at its first use, PyTorch imports its compiler
            torch.autograd.grad((out * torch.ones_like(out)).sum(), wanted)

        return work

    def why_dense(self) -> str:
        """Why the kernels cannot compute it; empty if they can."""
        x, psi = self.x, self.layer.psi
        if torch.is_autocast_enabled("cpu") or x.dtype != psi.dtype or x.dtype not in DTYPES:
            return f"its activations are not in {psi.dtype}"
        if library() is None and (self.is_conv2d or self.layer.w.base != "zero"):
            return "it needs a compiler"
        if not self.is_conv2d:
            return ""
        if self.groups != 1:
            return f"groups={self.groups}"
        if x.dim() != 4 or "same" in self.how:
            return "a convolution of this kind has no kernel"
        shape = self.layer.plan.shape
        size = out_size(x.shape, shape, *map(as_pair, self.how))
        if max(x.numel(), len(x) * shape[0] * prod(size)) > LARGEST:
            return "its images are too large"
        return ""


def as_pair(value: Any) -> tuple[int, int]:
    """A setting of a convolution for height and width."""
    if value == "valid":
        return 0, 0
    return tuple(value) * (2 // len(value)) if isinstance(value, (tuple, list)) else (value, value)


class SparseWeight(Tensor):
    """Takes the place of a weight in a model. Its memory is the dense buffer, which may be old."""

    layer: SparseLayer

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in OF_ALL_TENSORS:
            return super().__torch_function__(function, types, args, kwargs)
        if function in PRODUCTS:
            product = PRODUCTS[function](*args, **kwargs)
            if product is not None:
                return product.layer.multiply(product)
        name = getattr(function, "__qualname__", "").removesuffix(".__get__")

        def dense(weight: SparseWeight) -> Tensor:
            weight.layer.owner.refused[weight.layer.name] = f"the model calls {name} with it"
            return weight.layer.w.theta()

        args, kwargs = tree_map_only(SparseWeight, dense, (args, kwargs))
        return function(*args, **kwargs)


#: what does not depend on values
OF_ALL_TENSORS: set[Any] = {
    *(Tensor.dim, Tensor.size, Tensor.numel, Tensor.is_floating_point, Tensor.__hash__),
    *(
        getattr(Tensor, name).__get__
        for name in ("shape", "ndim", "dtype", "device", "layout", "is_cuda", "is_sparse")
    ),
}


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Product | None:
    if isinstance(weight, SparseWeight) and not isinstance(input, SparseWeight):
        return Product(weight.layer, input, bias)
    return None


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Product | None:
    if isinstance(weight, SparseWeight) and not isinstance(input, SparseWeight):
        return Product(weight.layer, input, bias, (stride, padding, dilation), groups)
    return None


#: by function: the product that a call of it asks for, with its arguments
PRODUCTS: dict[Any, Callable[..., Product | None]] = {F.linear: linear, F.conv2d: conv2d}
