"""Other sparse training on CPUs: sparselab's SparseLinear (pip install sparselab), and PyTorch's
products with CSR matrices. Both have Linear layers alone, and draw which weights they have."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

warnings.filterwarnings("ignore", "[Ss]parse ")  # CSR matrices are in beta
Make = Callable[[nn.Module, float], nn.Module]


def sparselab(model: nn.Module, density: float) -> nn.Module:
    from sparselab import SparseLinear

    def layer(dense: nn.Linear) -> nn.Module:
        return SparseLinear(dense.in_features, dense.out_features, sparsity=1 - density)

    return with_linear(model, layer)


def torch_csr(model: nn.Module, density: float) -> nn.Module:
    return with_linear(model, lambda dense: CSRLinear(dense, density))


@cache
def installed() -> dict[str, Make]:
    """By name: makes an MLP sparse. A line is printed where a package is missing."""
    found: dict[str, Make] = {"torch CSR": torch_csr}
    if importlib.util.find_spec("sparselab"):
        found["sparselab"] = sparselab
    else:
        print("sparselab is not installed (pip install sparselab): its column is absent\n")
    return found


def with_linear(model: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    for name, child in list(model.named_children()):
        if isinstance(child, nn.Linear):
            setattr(model, name, make(child))
        else:
            with_linear(child, make)
    return model


class CSRLinear(nn.Module):
    """A Linear layer of which these weights exist: rows and columns are its matrix and the
    transposed one, order the places of the values of `columns` in those of `rows`."""

    def __init__(self, dense: nn.Linear, density: float) -> None:
        super().__init__()
        mask = torch.rand_like(dense.weight) < density
        numbers = torch.zeros_like(dense.weight, dtype=torch.float64)
        numbers[mask] = torch.arange(1, 1 + int(mask.sum()), dtype=torch.float64)
        columns = numbers.t().contiguous().to_sparse_csr()
        self.rows, self.columns = numbers.float().to_sparse_csr(), columns.float()
        self.order = columns.values().long() - 1
        self.values, self.bias = nn.Parameter(dense.weight.detach()[mask]), dense.bias

    def forward(self, x: Tensor) -> Tensor:
        return CSRProduct.apply(x, self.values, self) + self.bias


class CSRProduct(torch.autograd.Function):
    """x W^T for the W with these values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, layer: CSRLinear) -> Tensor:
        ctx.save_for_backward(x, values)
        ctx.layer = layer
        return (filled(layer.rows, values) @ x.t()).t()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, values = ctx.saved_tensors
        layer, dx = ctx.layer, None
        if ctx.needs_input_grad[0]:
            dx = (filled(layer.columns, values[layer.order]) @ grad.t()).t()
        sampled = torch.sparse.sampled_addmm(layer.rows, grad.t(), x, beta=0.0)
        return dx, sampled.values(), None


def positions(model: nn.Module) -> int:
    """Bytes of what says where the weights are, as far as Python sees it."""
    total = 0
    for layer in model.modules():
        for pattern in (getattr(layer, "rows", None), getattr(layer, "columns", None)):
            if pattern is not None:
                total += 8 * (pattern.crow_indices().numel() + 2 * pattern.col_indices().numel())
    return total


def filled(pattern: Tensor, values: Tensor) -> Tensor:
    parts = pattern.crow_indices(), pattern.col_indices()
    return torch.sparse_csr_tensor(*parts, values, pattern.shape)
