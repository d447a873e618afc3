"""Loss scaling for float16, as torch.amp.GradScaler does it.

Small gradients underflow in float16. So the loss is multiplied by a scale before the backward pass,
and the gradients are divided by it afterwards: before the method's pause, which sees true ones.
If one of them is not finite, the scale was too large: the step is skipped, and the scale halved.
After 2000 steps without that, it is doubled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dimred.net import Net

FIRST, GROWTH, BACKOFF, INTERVAL = 2.0**16, 2.0, 0.5, 2000


class LossScaling:
    """The scale of one run.

    skipped: steps without an update so far.
    overflowed: whether this is one of them.
    """

    def __init__(self, device: torch.device) -> None:
        self.skipped, self.overflowed = 0, False
        self._scale = torch.full((), FIRST, device=device)
        self._growth = torch.zeros((), dtype=torch.int32, device=device)
        self._found = torch.zeros((), device=device)

    def scale(self, loss: Tensor) -> Tensor:
        return loss * self._scale.to(loss.dtype)

    @torch.no_grad()
    def unscale(self, net: Net) -> None:
        """Divide all gradients by the scale. The host waits for the device here."""
        parameters = net.parameters().values()
        gradients = [p.grad for p in parameters if p.grad is not None]
        gradients += [*(net.dense_gradients.sums or {}).values()]
        self._found.zero_()
        if gradients:
            inverse = self._scale.reciprocal()
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, self._found, inverse)
        self.overflowed = bool(self._found)
        if self.overflowed:
            # of what has overflowed, a method learns that it is large; what is no number is zero
            largest = torch.finfo(torch.float16).max / float(self._scale)
            for each in gradients:
                each.nan_to_num_(0.0, largest, -largest)

    def update(self) -> None:
        """Adapt the scale, after the step was taken or skipped."""
        self.skipped += self.overflowed
        torch._amp_update_scale_(self._scale, self._growth, self._found, GROWTH, BACKOFF, INTERVAL)

    # -- for checkpoints and result.json --------------------
    def state(self) -> dict[str, Any]:
        return {
            "scale": float(self._scale),
            "growth": int(self._growth),
            "skipped": self.skipped,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self._scale.fill_(state["scale"])
        self._growth.fill_(state["growth"])
        self.skipped = state["skipped"]

    def report(self) -> dict[str, Any]:
        return {"loss_scale": float(self._scale), "skipped_steps": self.skipped}
