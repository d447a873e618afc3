"""The optimiser's state (momentum, second moments) as it follows parameters that are replaced.

A change of coordinates gives a weight a new parameter psi. Its optimiser state moves along
(`following`): entries that survive keep theirs, dropped ones lose theirs, new ones start without
any. The optimiser sees psi alone, and a pruned entry is no part of it (`Coordinates.theta`), so
neither momentum nor weight decay can change that entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dimred.net.coordinates import Coordinates


class OptimizerState:
    """What an optimiser stores for each parameter, and the multiple of the learning rate at which
    it trains each. Without an optimiser there is no state, and every method does nothing."""

    def __init__(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        self.optimizer = optimizer
        #: how often tensors of the state were replaced by others
        self.version = 0

    def of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """The state of a parameter, to read or to change in place (`set` replaces it); empty before
        its first step."""
        if self.optimizer is None or parameter not in self.optimizer.state:
            return {}
        return self.optimizer.state[parameter]

    def is_complete(self, parameter: nn.Parameter) -> bool:
        """Whether the optimiser has made the state that it keeps for a parameter: it does so in its
        first step."""
        if self.optimizer is None or not self.optimizer.defaults.get("momentum", True):
            return True
        state = self.of(parameter)
        return bool(state) and all(value is not None for value in state.values())

    def set(self, parameter: nn.Parameter, state: Mapping[str, Tensor]) -> None:
        if self.optimizer is None:
            return
        self.version += 1
        self.optimizer.state.pop(parameter, None)
        if state:
            # step counts are scalars: fused kernels read them on the device, others on the CPU
            fused = self.optimizer.defaults.get("fused")
            moved = {k: v.to(parameter.device) for k, v in state.items() if fused or v.dim()}
            self.optimizer.state[parameter] = {**state, **moved}

    def clear(self) -> None:
        """Start again without momentum."""
        if self.optimizer is not None:
            self.version += 1
            self.optimizer.state.clear()

    @contextmanager
    def following(self, w: Coordinates) -> Iterator[None]:
        """Within the block a weight gets other coordinates. Its gradient and its optimiser state
        follow: survivors keep their entries, dropped coordinates lose theirs, and those that join
        start from zero.

        psi becomes a new parameter, because autograd remembers the shape of the old one as long as
        any graph with it is alive."""
        old, grad, state = w.psi, w.psi.grad, self.of(w.psi)
        # Two supports have only the dense positions in common, so entries go through these. What
        # has another shape than psi (a count of steps) belongs to the weight as a whole.
        dense = {key: w.scatter(value) for key, value in state.items() if value.shape == old.shape}
        dense_grad = None if grad is None else w.scatter(grad)
        yield
        # at the pause of a step, that step goes on with its gradient
        w.psi.grad = None if dense_grad is None else w.gather(dense_grad)
        followed = {key: w.gather(value) for key, value in dense.items()}
        self.replace(old, w.psi, state | followed)

    def replace(self, old: nn.Parameter, new: nn.Parameter, state: Mapping[str, Tensor]) -> None:
        """Train `new`, which starts with this state, in place of `old`."""
        if self.optimizer is None:
            return
        for group in self.optimizer.param_groups:
            for i, p in enumerate(group["params"]):
                if p is old:
                    group["params"][i] = new
        self.optimizer.state.pop(old, None)
        self.set(new, state)

    def add(self, parameters: list[nn.Parameter], lr: float, decay: float | None) -> None:
        """Train more parameters, at `lr` times the learning rate; by default with the weight decay
        of the weights."""
        if self.optimizer is None or not parameters:
            return
        if decay is None:  # the first group holds the weights
            decay = self.optimizer.param_groups[0]["weight_decay"]
        self.optimizer.add_param_group({"params": parameters, "scale": lr, "weight_decay": decay})

    def remove(self, parameters: Iterable[nn.Parameter]) -> None:
        """Stop training these."""
        if self.optimizer is None:
            return
        removed = {id(p) for p in parameters}
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                if id(p) in removed:
                    self.optimizer.state.pop(p, None)
            group["params"] = [p for p in group["params"] if id(p) not in removed]

    def set_lr(self, lr: float) -> None:
        """Take the next steps at this learning rate, times the multiple of each group."""
        if self.optimizer is None:
            return
        for group in self.optimizer.param_groups:
            rate, now = lr * group.get("scale", 1.0), group["lr"]
            if not self.optimizer.defaults.get("fused"):
                group["lr"] = rate
            elif not group["params"]:
                continue
            # a tensor of its own on the device, which a captured step reads
            elif not isinstance(now, Tensor):
                group["lr"] = torch.tensor(rate, device=group["params"][0].device)
            elif group.get("rate") != rate:
                now.fill_(rate)
            group["rate"] = rate

    def scale_lr(self, scales: Mapping[nn.Parameter, float]) -> None:
        """Train parameters at a multiple of the learning rate. A group is split where its
        parameters have different multiples."""
        if self.optimizer is None:
            return
        for group in list(self.optimizer.param_groups):
            parts: dict[float, list[Tensor]] = {}
            for parameter in group["params"]:
                scale = scales.get(parameter, group.get("scale", 1.0))
                parts.setdefault(scale, []).append(parameter)
            for i, (scale, parameters) in enumerate(parts.items()):
                if i:
                    group = {**group, "lr": self.optimizer.defaults["lr"]}
                    self.optimizer.param_groups.append(group)
                group["scale"], group["params"] = scale, parameters
