"""Sums that a GPU would add up in another order in every run are computed in another way.

torch.use_deterministic_algorithms lists the operations. Tensors on a GPU are PyTorch's fake ones.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import compose
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dimred.conformance import Make
from dimred.conformance.observe import run
from dimred.net import Net
from dimred.net.eager import DispatchMode
from dimred.scores.basic import lamp

aten = torch.ops.aten
IN_ANY_ORDER = {
    aten.cumsum,
    aten.index_add,
    aten.index_add_,
    aten.scatter_add,
    aten.scatter_add_,
}


class Sums(DispatchMode):
    """Those of floating-point numbers, with the devices on which they are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.found = set[tuple[str, str]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in IN_ANY_ORDER and args[0].is_floating_point():
            self.found.add((str(func), args[0].device.type))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", ["channel_at_init", "l1_filters", "network_slimming"])
def test_scores_of_channels_are_the_same_in_every_run(method: str) -> None:
    with Sums() as sums:
        run(Make(method, compose(f"method={method}"))(), "conv_norm", steps=8)
    assert not sums.found


def test_lamp_is_the_same_in_every_run() -> None:
    with FakeTensorMode(), Sums() as sums:
        net = Net(nn.Linear(5, 3, device="cuda"), initial=dict)
        scores = lamp(net)
    assert scores["weight"].is_cuda
    assert sums.found == {("aten.cumsum.default", "cpu")}
