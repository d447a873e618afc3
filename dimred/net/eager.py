"""PyTorch's dispatch modes and optimisers without torch.compile.

PyTorch marks some of their functions as not to be compiled. At the first call of one it imports
torch._dynamo for that, which takes as long as `import torch`. dimred compiles nothing but models
(`recipe.compile`), so here these functions are as they were before they were marked: the same
code, and the same bits.
"""

from __future__ import annotations

from inspect import unwrap
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Optimizer = TypeVar("Optimizer", bound=torch.optim.Optimizer)


class DispatchMode(TorchDispatchMode):
    """A base class for modes that see every operation: define `__torch_dispatch__`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__torch_dispatch__ = unwrap(cls.__torch_dispatch__)  # type: ignore[method-assign]


def eager(kind: type[Optimizer]) -> type[Optimizer]:
    """A class of optimisers as it is in PyTorch, to be used outside of compiled code."""
    functions = {
        "step": torch.no_grad()(unwrap(kind.step)),
        "add_param_group": unwrap(kind.add_param_group),
    }
    return type(kind.__name__, (kind,), functions)


class Momentum(torch.optim.SGD):
    """SGD of parameters some of which begin to train later than others.

    PyTorch's fused kernel raises a TypeError unless all parameters of a group have a momentum, or
    none has."""

    def _init_group(self, group: Any, params: Any, grads: Any, momentum_buffer_list: Any) -> bool:
        is_sparse = super()._init_group(group, params, grads, momentum_buffer_list)
        begin = [i for i, momentum in enumerate(momentum_buffer_list) if momentum is None]
        if group["fused"] and len(begin) < len(params):
            for i in begin:
                momentum_buffer_list[i] = torch.zeros_like(params[i])
        return is_sparse


SGD, Adam, AdamW = eager(Momentum), eager(torch.optim.Adam), eager(torch.optim.AdamW)
