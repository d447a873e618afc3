"""Run a method on a toy problem and record violations of the rules that hold at every step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dimred.conformance.emulated_graph import EmulatedGraph
from dimred.conformance.toy import NETS, RECIPE, Blobs
from dimred.methods.base import Method
from dimred.net import Net, State
from dimred.net.coordinates import Base, Support
from dimred.storage.folder import RunFolder
from dimred.training.capture import CapturedStep
from dimred.training.loop import Train
from dimred.training.observers import Observer
from dimred.training.ranks import ALONE, Ranks

STEPS = 20  # in a training: five epochs of four steps


@dataclass
class Trace:
    """What a training showed: the number of trained weights after every step, and violations."""

    counts: list[int] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)  # untrained values that have changed
    # the optimiser's state went to another coordinate, or was lost
    optimizer: list[str] = field(default_factory=list)
    # statistics or random states that scoring changed
    scoring: list[str] = field(default_factory=list)
    captured: int = 0  # steps that were replayed
    reason: str = ""  # why steps cannot be captured
    state: State = field(default_factory=dict)  # of the net, at the end


class WatchedNet(Net):
    """A net that checks the optimiser's state at every change of coordinates."""

    trace: Trace
    moves = 0

    def move(self, name: str, theta: Tensor, support: Support, base: Base) -> None:
        w, self.moves = self.weights[name], self.moves + 1
        trained, before = w.trained(), self._dense_optimizer_state(name)
        super().move(name, theta, support, base)
        after = self._dense_optimizer_state(name)
        stayed, joined = trained & w.trained(), w.trained() & ~trained
        for key in before if self.optimizer and w.dim else ():
            if key not in after or not torch.equal(after[key][stayed], before[key][stayed]):
                self.trace.optimizer.append(
                    f"{name}: weights that remained after a change of support lost their {key}"
                )
            elif after[key][joined].any():
                self.trace.optimizer.append(
                    f"{name}: new weights start with a {key} of other weights"
                )

    def _dense_optimizer_state(self, name: str) -> dict[str, Tensor]:
        """The optimiser's state of each trained number of a weight, scattered to its position (D);
        zero elsewhere."""
        w = self.weights[name]
        return {
            key: w.scatter(value)
            for key, value in self.optimizer_state.of(w.psi).items()
            if value.shape == w.psi.shape
        }


class Watch(Observer):
    """Checks every step. crash: raise Crash before this step, counted over all training phases."""

    def __init__(self, net: WatchedNet, crash: int = -1) -> None:
        self.net, self.crash = net, crash
        self._unscored = statistics(net)
        # the number of changes of coordinates, the untrained values, and the optimiser's state
        self._last: tuple[int, State, State] | None = None

    def before_step(self, train: Train, step: int) -> None:
        if train.steps_done == 0:
            self._check_scoring("before the first step")

    def after_backward(self, train: Train, step: int) -> None:
        self._unscored = statistics(self.net)

    def before_update(self, train: Train, step: int) -> None:
        if train.steps_done == self.crash:
            raise Crash
        self._check_scoring(f"at the pause of step {step}")
        self._check_untrained(train, f"before step {step}")

    def after_update(self, train: Train, step: int) -> None:
        self._check_untrained(train, f"in step {step}", updated=True)
        self.net.trace.counts.append(trained(self.net))
        self.net.trace.captured = train.stepper.captured
        self.net.trace.reason = train.stepper.reason
        save_every_third_step(train)

    def _check_scoring(self, when: str) -> None:
        if name := difference(self._unscored, statistics(self.net)):
            self.net.trace.scoring.append(f"{name} changed {when}, though nothing was trained")

    def _check_untrained(self, train: Train, when: str, updated: bool = False) -> None:
        """Unless coordinates have changed since the last check, untrained values are the same as
        then, and so is the optimiser's state, except for its own updates."""
        trace = self.net.trace
        now = self.net.moves, untrained(self.net), optimizer_state_of(self.net)
        if self._last and self._last[0] == self.net.moves:
            if name := difference(self._last[1], now[1]):
                trace.frozen.append(f"{name} is not trained and changed {when}")
            if not updated and (name := difference(self._last[2], now[2])):
                trace.optimizer.append(f"the optimiser's state of {name} changed {when}")
        known: set[int] = set()
        for group in train.optimizer.param_groups:
            known |= {id(p) for p in group["params"]}
        for name, p in self.net.parameters().items():
            # a change of coordinates makes psi a new parameter, which the optimiser has to take
            # over
            if p.requires_grad and p.numel() and id(p) not in known:
                trace.optimizer.append(f"the optimiser does not train {name} {when}")
        self._last = now


def save_every_third_step(train: Train) -> None:
    """Called after an update. A crash then loses up to two steps, which the resumed run repeats."""
    train.replay.checkpoint_seconds = 0.0 if train.steps_done % 3 == 0 else math.inf


class Crash(Exception):
    """Simulates the end of the process."""


def statistics(net: Net) -> State:
    """The state that scoring must not change."""
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


def optimizer_state_of(net: Net) -> State:
    """Copies of the optimiser's state of each parameter."""
    out = {}
    for name, p in net.parameters().items():
        for key, value in net.optimizer_state.of(p).items():
            out[f"{name}/{key}"] = value.clone()
    return out


def trained(net: Net) -> int:
    """The number of covered weights that are trained (parameters of transforms do not count)."""
    return sum(w.dim for w in net.weights.values())


def difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str:
    """The first name with different bits in two states; empty if they are equal."""
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
    device: str = "cpu",
    emulated: bool | None = None,
    observers: Iterable[Observer] = (),
    ranks: Ranks = ALONE,
    **recipe: Any,
) -> WatchedNet:
    """Train a toy net by the method, from scratch or from the folder's checkpoint.

    emulated: with the optimisers of GPUs, capture steps by emulated graphs, or compute them
        eagerly; None for the optimisers of CPUs."""
    net = toy_net(kind, basis, seed, dtype, include)
    net.to(device)
    settings = dataclasses.replace(RECIPE, **{"steps": STEPS, "batch_size": 16, **recipe})
    train = Train(net, Blobs(dtype, device), settings, seed=seed, folder=folder, ranks=ranks)
    train.observers += [Watch(net, crash), *observers]
    if emulated is not None:
        step_as_on_a_gpu(train, captured=emulated)
    if compiled:  # "eager" traces without generating code, which would take ten seconds a net
        torch._dynamo.reset()
        net.compile(backend="eager")
    with one_thread():
        method.run(net, train)
    net.trace.state = net.state()
    return net


def step_as_on_a_gpu(train: Train, captured: bool) -> None:
    """Let the optimiser update all parameters in one kernel, with a learning rate in a tensor.

    captured: capture steps by emulated graphs."""
    train.optimizer.defaults["fused"] = True
    for group in train.optimizer.param_groups:
        group["fused"] = True
    train.net.optimizer_state.set_lr(train.recipe.lr_at(0, len(train)))
    if captured:
        feed = train.batches.feed(fixed=True)
        parts = train.net, train.recipe, feed, train.optimizer, train.running_loss
        train.stepper = CapturedStep(*parts, capture=EmulatedGraph, ranks=train.ranks)


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit PyTorch to one thread: on nets this small, several threads mostly wait for each
    other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def logits(model: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    """The logits of the test examples, in evaluation mode."""
    images, _ = next(Blobs(dtype).eval_batches("test"))
    with torch.no_grad():
        return model.eval()(images)


def outputs(net: Net) -> Tensor:
    """The logits of the test examples, in evaluation mode, by the net."""
    net.train(False)
    dtype = next(net.model.parameters()).dtype
    with torch.no_grad(), net.weights_in_place() as model:
        return logits(model, dtype)
