"""Run a method on a toy problem and write down where it breaks a rule that holds at every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dimred.conformance.toy import NETS, RECIPE, Blobs
from dimred.methods.base import Method
from dimred.net import Net, State
from dimred.net.coordinates import Base, Support
from dimred.storage.folder import RunFolder
from dimred.training.loop import Train
from dimred.training.recipe import Recipe

STEPS = 20  # of a training: five epochs of four


@dataclass
class Trace:
    """What was seen: the number of trained weights after every step, and complaints."""

    counts: list[int] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)  # what is not trained has moved
    memory: list[str] = field(
        default_factory=list
    )  # the optimiser's memory went to another coordinate, or was lost
    scoring: list[str] = field(
        default_factory=list
    )  # statistics or random states moved while nothing was trained
    state: State = field(default_factory=dict)  # of the net, in the end


class WatchedNet(Net):
    """Watches every change of coordinates."""

    trace: Trace
    moves = 0

    def move(self, name: str, theta: Tensor, support: Support, base: Base) -> None:
        w, self.moves = self.weights[name], self.moves + 1
        trained, before = w.trained(), self._dense_memory(name)
        super().move(name, theta, support, base)
        after = self._dense_memory(name)
        stayed, joined = trained & w.trained(), w.trained() & ~trained
        for key in before if self.optimizer and w.dim else ():
            if key not in after or not torch.equal(after[key][stayed], before[key][stayed]):
                self.trace.memory.append(
                    f"{name}: survivors of a change of support lost their {key}"
                )
            elif after[key][joined].any():
                self.trace.memory.append(f"{name}: newcomers start with a {key} that is not theirs")

    def _dense_memory(self, name: str) -> dict[str, Tensor]:
        """The optimiser's memory of each trained number of a weight, in place (D), zero
        elsewhere."""
        w = self.weights[name]
        return {
            key: w.scatter(value)
            for key, value in self.optimizer_state.of(w.psi).items()
            if value.shape == w.psi.shape
        }


class WatchedTrain(Train):
    """Watches every step. crash: raise Crash before this step is taken (counted over all calls)."""

    net: WatchedNet
    crash = -1

    def __init__(
        self, net: WatchedNet, data: Blobs, recipe: Recipe, folder: RunFolder | None = None
    ) -> None:
        self._last: tuple[int, State, State] | None = (
            None  # moves so far; then: what is not trained, memory
        )
        super().__init__(net, data, recipe, seed=net.seed, folder=folder, checkpoint_seconds=0)
        self._unscored = statistics(net)

    def _backward(self, images: Tensor, labels: Tensor) -> None:
        if self.steps_done == 0:
            self._check_scoring("before the first step")
        super()._backward(images, labels)
        self._unscored = statistics(self.net)

    def _descend(self, t: int) -> None:
        if self.steps_done == self.crash:
            raise Crash
        self._check_scoring(f"at the pause of step {t}")
        self._check_still(f"before step {t}")
        super()._descend(t)
        self._check_still(f"in step {t}", stepped=True)
        self.net.trace.counts.append(trained(self.net))

    def _save_checkpoint(self, call: int, t: int) -> None:
        if self.steps_done % 3 == 0:  # so that steps have to be repeated after a crash
            super()._save_checkpoint(call, t)

    def _check_scoring(self, when: str) -> None:
        if name := difference(self._unscored, statistics(self.net)):
            self.net.trace.scoring.append(f"{name} changed {when}, though nothing was trained")

    def _check_still(self, when: str, stepped: bool = False) -> None:
        """Unless coordinates have changed since the last look, what is not trained is as it was
        then, and so is the optimiser's memory, but for its own steps."""
        trace, now = self.net.trace, (self.net.moves, untrained(self.net), memory(self.net))
        if self._last and self._last[0] == self.net.moves:
            if name := difference(self._last[1], now[1]):
                trace.frozen.append(f"{name} is not trained and changed {when}")
            if not stepped and (name := difference(self._last[2], now[2])):
                trace.memory.append(f"the optimiser's memory of {name} changed {when}")
        known = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        trace.memory += [
            f"the optimiser does not train {name} {when}"
            for name, p in self.net.parameters().items()
            if p.requires_grad and p.numel() and id(p) not in known
        ]
        self._last = now


class Crash(Exception):
    """The process ends here."""


def statistics(net: Net) -> State:
    """What scoring must leave alone."""
    return {
        "the global random state": torch.get_rng_state(),
        **{n: b.clone() for n, b in net.model.named_buffers()},
    }


def untrained(net: Net) -> State:
    """Copies of all parameters, zero where they are trained."""
    weights = {name: w.dense().masked_fill(w.trained(), 0) for name, w in net.weights.items()}
    return weights | {
        name: p.detach().clone() for name, p in net.uncovered.items() if not p.requires_grad
    }


def memory(net: Net) -> State:
    """Copies of what the optimiser remembers of each parameter."""
    return {
        f"{name}/{key}": value.clone()
        for name, p in net.parameters().items()
        for key, value in net.optimizer_state.of(p).items()
    }


def trained(net: Net) -> int:
    """How many covered weights are trained (parameters of maps do not count)."""
    return sum(w.dim for w in net.weights.values())


def difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str:
    """The first name under which two states differ in a bit; empty if they are the same."""
    for name in [*one, *(name for name in other if name not in one)]:
        if name not in one or name not in other or not torch.equal(one[name], other[name]):
            return name
    return ""


def toy_net(
    kind: str,
    basis: Any = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    include: Iterable[str] = (),
) -> WatchedNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = WatchedNet(NETS[kind]().to(dtype), seed=seed, include=include)
        if basis:
            basis.apply(net)
    net.trace = Trace()
    return net


def run(
    method: Method,
    kind: str,
    basis: Any = None,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
    folder: RunFolder | None = None,
    crash: int = -1,
    include: Iterable[str] = (),
    **recipe: Any,
) -> WatchedNet:
    """Train a toy net by the method, from scratch or from the folder's checkpoint."""
    net = toy_net(kind, basis, seed, dtype, include)
    settings = dataclasses.replace(RECIPE, **{"steps": STEPS, "batch_size": 16, **recipe})
    train = WatchedTrain(net, Blobs(dtype), settings, folder)
    train.crash = crash
    if compiled:  # the translator without its code generator, which would take ten seconds a net
        torch._dynamo.reset()
        net.compile(backend="eager")
    with one_thread():
        method.run(net, train)
    net.trace.state = net.state()
    return net


@contextmanager
def one_thread() -> Iterator[None]:
    """On nets this small, several threads wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def logits(model: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    """Of the test examples, in evaluation mode."""
    images, _ = next(Blobs(dtype).eval_batches("test"))
    with torch.no_grad():
        return model.eval()(images)
