"""Training steps as CUDA graphs.

On a GPU the networks of the surveys are computed faster than Python can launch their kernels. So a
step is captured once, as two graphs with the method's pause between them, and replayed: the same
kernels on the same storages, hence the same bits. What is assumed of the net is compared before
every replay; when coordinates change, the step is captured again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dimred.errors import OutOfMemory, UserError, first_line, see
from dimred.garbage import uncollected
from dimred.net import Net
from dimred.training.ranks import ALONE, Ranks
from dimred.training.step import Step, addresses
from dimred.training.tape import Recorder, Tape, tensors

log = logging.getLogger(__name__)


class Graph(Protocol):
    """Captured work."""

    def replay(self) -> None: ...


class Capture(Protocol):
    def __call__(self, work: Callable[[], None]) -> Graph:
        """The graph of what `work` launches, which is not executed before it is replayed."""
        ...


class CudaCapture:
    """Captures CUDA graphs on the current device.

    All graphs share one pool of memory: a new one takes the place of those that are gone, and those
    of one step use the same memory in turn.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        # a pool can be joined as long as one graph uses it: this one, for ever
        self._keeper = self(launch_something)

    def __call__(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # a graph that the garbage collector finds must not be destroyed while another is captured
        with uncollected():
            # other threads may go on: those of a DataLoader copy to the device
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                work()
            except BaseException:
                with suppress(RuntimeError):
                    graph.capture_end()
                raise
            graph.capture_end()
        return graph


def use_own_stream(device: torch.device) -> None:
    """Compute everything that follows on a stream of dimred's.

    The default stream cannot be captured. And gradients of a parameter are added up on the stream
    on which autograd has seen it first, be it while weights were scored: if that is another one
    than the captured one, capture fails."""
    if device not in STREAMS:
        STREAMS[device] = torch.cuda.Stream(device)
    STREAMS[device].wait_stream(torch.cuda.current_stream(device))
    # also where it is that stream already: the run before may have been on another device
    torch.cuda.set_stream(STREAMS[device])


#: one for all runs of a process, so that they reuse each other's memory
STREAMS: dict[torch.device, torch.cuda.Stream] = {}


def launch_something() -> None:
    torch.zeros(1, device="cuda")


@dataclass
class Captured:
    """The graphs of a step.

    gradients: what backward left, by parameter; the graph writes into these tensors, at these
        addresses.
    dense: the dense gradients, if they are kept.
    """

    backward: Graph
    gradients: Mapping[str, Tensor | None]
    addresses: list[int]
    dense: Mapping[str, Tensor]
    update: Graph | None = None


class CapturedStep(Step):
    """A step that is captured where it may be, and computed eagerly where not.

    capture: what makes graphs.
    required: raise UserError where steps cannot be captured.
    """

    #: eager steps, without a captured one, after which a required capture is given up
    PATIENCE = 100

    def __init__(
        self, *parts: Any, capture: Capture, required: bool = False, ranks: Ranks = ALONE
    ) -> None:
        super().__init__(*parts, fused=True, ranks=ranks)
        self.required = required
        self._capture = capture
        self._graphs = dict[bool, Captured]()  # by whether dense gradients are kept
        self._now: Captured | None = None  # whose gradients are those of this step
        self._places: Places = {}  # where the tensors lie that the update's graph changes
        self._named: dict[str, nn.Parameter] = {}  # the parameters by their names
        self._judged: dict[Kind, bool] = {}  # whether steps of a kind may be captured
        # of a step with these coordinates, by whether dense gradients are kept
        self._tapes = dict[bool, Tape]()
        self._steady = False  # whether coordinates are those of the last step
        self._eager = 0

    # -- the two parts --------------------
    def gradients(self) -> None:
        self.prepare()
        dense = self.net.dense_gradients.kept
        self._now = self._graphs.get(dense)
        if self._now is None and self._judged.get(self._kind()):
            self._now = self._graphs[dense] = self._capture_gradients()
        if self._now is None:
            self._compute_eagerly()
            return
        self._now.backward.replay()
        for name, parameter in self._named.items():
            parameter.grad = self._now.gradients[name]
        self.net.dense_gradients.replace(self._now.dense)
        self.captured += 1

    def update(self) -> None:
        now = self._now
        if now is None or not self._is_as_captured(now):
            super().update()
            return
        if now.update is None:
            self._places = places(self.net, self._named)
            now.update = self._graph_of(super().update)
        now.update.replay()

    def _is_as_captured(self, now: Captured) -> bool:
        """Whether the pause has left parameters and gradients as they were."""
        for name, parameter in self._named.items():
            gradient = now.gradients[name]
            if parameter.grad is not gradient:
                return False
            if gradient is not None and not self.net.optimizer_state.is_complete(parameter):
                return False
        if addresses(tensors(now.gradients.values())) != now.addresses:
            self._graphs.clear()  # `gradient.data = ...` has replaced what the graph writes to
            return False
        return self.is_prepared()

    # -- coordinates that have changed --------------------
    def coordinates_changed(self, in_place: bool) -> None:
        self._named, self._steady = self.net.parameters(), False
        self._tapes.clear()
        if not (in_place and self._move_to_places()):
            self._graphs.clear()
            self._places.clear()

    def _move_to_places(self) -> bool:
        """Move the new coordinates to where the old ones were, so that graphs hold for them, too;
        whether that is possible."""
        now = places(self.net, self._named)
        if now.keys() != self._places.keys():
            return False
        if not all(same_form(self._places[key], new) for key, new in now.items()):
            return False
        for (name, key), new in now.items():
            old = self._places[name, key]
            if old.data_ptr() == new.data_ptr():
                continue
            old.copy_(new)
            if key:
                self.net.optimizer_state.of(self._named[name])[key] = old
            else:
                self._named[name].data = old
        return True

    def _kind(self) -> Kind:
        """Steps of one kind differ in coordinates, and in whether dense gradients are kept."""
        kinds = tuple(type(each) for each in self.net.transforms.values())
        return kinds, self.net.model.training, type(self.part)

    # -- proof and capture --------------------
    def _compute_eagerly(self) -> None:
        """Compute the gradients eagerly; of a new kind of step, record two."""
        self._eager += 1
        if self.required and not self.captured and self._eager > self.PATIENCE:
            raise UserError(
                f"recipe.capture=true, but none of the first {self.PATIENCE} steps could be "
                "captured, as coordinates changed in every one. Choose recipe.capture=auto"
            )
        kind = self._kind()
        # recording is slow, and of no use where coordinates change in every step
        if kind in self._judged or not self._steady:
            super().compute()
        elif self.net.forward.compiled:
            super().compute()
            self._judge(kind, "")  # compiled code is not seen by a recorder
        else:
            with Recorder() as recorder:
                super().compute()
            dense = self.net.dense_gradients.kept
            before = self._tapes.setdefault(dense, recorder.tape)
            if before is not recorder.tape:
                self._warn_of(before.unordered)
                self._judge(kind, before.difference(recorder.tape))
                self._tapes.clear()
        self._steady = True

    def _warn_of(self, unordered: set[str]) -> None:
        """Once for each kind of step."""
        if unordered and self.recipe.deterministic:
            log.warning(
                "two runs of this model on a GPU may differ in bits, because of %s. %s",
                ", ".join(sorted(unordered)),
                see("gpu.md#the-same-bits"),
            )

    def _judge(self, kind: Kind, why: str) -> None:
        self._judged[kind] = not why
        if not why:
            # graphs have memory of their own, and none is freed for them while they are captured
            torch.cuda.empty_cache()
            return
        self.reason = why
        if self.required:
            raise UserError(
                f"recipe.capture=true, but this step cannot be captured in a CUDA graph: {why}. "
                "Choose recipe.capture=auto to compute it eagerly. "
                f"{see('gpu.md#captured-steps')}"
            )
        log.info("steps are not captured: %s", why)

    def _graph_of(self, work: Callable[[], None]) -> Graph:
        try:
            return self._capture(work)
        except torch.OutOfMemoryError as error:
            why = first_line(error)
            raise OutOfMemory(
                f"out of memory while a training step was captured as a CUDA graph ({why}). "
                "Graphs keep the memory of one step. Choose recipe.capture=false, or a smaller "
                "recipe.batch_size or model; repeat the command to resume from the last checkpoint"
            ) from error
        except torch.AcceleratorError as error:
            why = first_line(error)
            if "captur" not in why:  # the GPU has failed
                raise
            raise UserError(
                f"a training step could not be captured as a CUDA graph ({why}). Choose "
                "recipe.capture=false; repeat the command to resume from the last checkpoint"
            ) from error

    def _capture_gradients(self) -> Captured:
        graph = self._graph_of(super().compute)
        gradients = {name: p.grad for name, p in self._named.items()}
        dense = dict(self.net.dense_gradients.sums or {})
        return Captured(graph, gradients, addresses(tensors(gradients.values())), dense)


#: the types of the transforms, whether the model is in training mode, and what of it is computed
Kind = tuple[tuple[type, ...], bool, type]
#: by parameter and key of the optimiser's state; the parameter itself under the empty key
Places = dict[tuple[str, str], Tensor]


def places(net: Net, parameters: Mapping[str, nn.Parameter]) -> Places:
    """The tensors that an optimiser's step changes."""
    found: Places = {}
    for name, parameter in parameters.items():
        found[name, ""] = parameter.data
        for key, value in net.optimizer_state.of(parameter).items():
            found[name, key] = value
    return found


def same_form(old: Tensor, new: Tensor) -> bool:
    return old.shape == new.shape and old.dtype == new.dtype and old.stride() == new.stride()
