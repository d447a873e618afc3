"""The search for the longest frozen prefix of a net (prefix.py).

The calls of modules are recorded once. From the last one back, each whose input depends on nothing
that trains is a candidate, and the first that passes two trials on a few examples is taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from dimred.net.buffers import buffers_kept
from dimred.net.net import Net
from dimred.net.part import Compute, nearly_equal
from dimred.net.prefix import Prefix, without_values
from dimred.net.seeded import bits, generators, generators_kept

Logits = Callable[[Compute, Tensor], Tensor]


def longest_prefix(
    net: Net,
    images: Tensor,
    logits: Logits,
    fits: Callable[[Prefix], bool],
    channels_last: bool = False,
) -> Prefix | None:
    """The longest frozen prefix that `fits`; None if there is none. The net stays as it is.

    images: a few examples to try it with.
    logits: computes the logits of images by a model."""
    if net.transforms:  # methods may change them in every step
        return None
    with _unchanged(net), net.weights_in_place(channels_last=channels_last) as model:
        trial = _Trial(net, model, images, logits)
        for prefix in trial.candidates():
            if fits(prefix) and trial.is_constant(prefix) and trial.is_complete(prefix):
                return prefix
    return None


@contextmanager
def _unchanged(net: Net) -> Iterator[None]:
    """Afterwards buffers, modes and generators are as before."""
    training = net.model.training
    devices = {each.device for each in net.model.parameters() if each.is_cuda}
    try:
        with buffers_kept(net.model), generators_kept(list(devices)):
            yield
    finally:
        net.train(training)


class _Call(NamedTuple):
    """A call of a module. begin, end: when, in numbers of beginnings and ends of calls.
    given: its input, without values, if that is one frozen tensor and nothing else."""

    name: str
    begin: int
    end: int
    given: Tensor | None
    output: Any

    def contains(self, other: _Call) -> bool:
        return self.begin < other.begin and other.end < self.end


class _Trial:
    """Computes the logits of some images in different ways."""

    def __init__(self, net: Net, model: nn.Module, images: Tensor, logits: Logits) -> None:
        self.net, self.model, self.images, self.logits = net, model, images, logits
        net.train(False)
        with _Calls(model) as seen, torch.enable_grad():
            self.expected = self.whole(images).detach()
        self.calls = sorted(seen.calls, key=lambda each: each.begin)

    def whole(self, images: Tensor) -> Tensor:
        return self.logits(self.model, images)

    def candidates(self) -> Iterator[Prefix]:
        """The longest first."""
        times = Counter(each.name for each in self.calls)
        for position in reversed(range(len(self.calls))):
            entry = self.calls[position]
            if entry.given is None:
                continue
            before = [each for each in self.calls if each.end < entry.begin]
            skipped = [a for a in before if not any(b.contains(a) for b in before)]
            once = all(times[each.name] == 1 for each in (entry, *skipped))
            if once and self._is_by_example(skipped) and self._have_parameters(skipped):
                tensors = self._tensors(entry, skipped)
                outputs = [(self._module(each), each.output) for each in skipped]
                shape, given = tuple(self.images.shape[1:]), entry.given
                module = self._module(entry)
                yield Prefix(entry.name, module, position, outputs, shape, given, tensors)

    def _have_parameters(self, calls: list[_Call]) -> bool:
        return any([*self._module(each).parameters()] for each in calls)

    def _module(self, call: _Call) -> nn.Module:
        return self.model.get_submodule(call.name)

    def _is_by_example(self, calls: list[_Call]) -> bool:
        leaves = tree_leaves([each.output for each in calls])
        tensors = [each for each in leaves if isinstance(each, Tensor)]
        return all(each.dim() and len(each) == len(self.images) for each in tensors)

    def _tensors(self, entry: _Call, skipped: list[_Call]) -> dict[str, Tensor]:
        """The frozen tensors of the skipped modules, and of those that contain the entry."""
        trained = self.net.trained_parameters()
        outer = ["", *(each.name for each in self.calls if each.contains(entry))]
        found: dict[str, Tensor] = {}
        model = self.net.model
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            owner = name.rpartition(".")[0]
            inside = any(f"{owner}.".startswith(f"{each.name}.") for each in skipped)
            if name not in trained and (inside or owner in outer):
                found[name] = tensor
        return found

    @torch.no_grad()
    def is_constant(self, prefix: Prefix) -> bool:
        """Whether activations are the same in training and in evaluation, and in whatever batch;
        training neither draws random numbers for them nor changes a tensor."""
        evaluated = prefix.activations(self.whole, self.images)
        alone = prefix.activations(self.whole, self.images[:1])
        with _unchanged(self.net):
            self.net.train(True)
            before = self._state(prefix)
            trained = prefix.activations(self.whole, self.images)
            if self._state(prefix) != before:
                return False
        return nearly_equal(evaluated, trained) and nearly_equal(evaluated[:1], alone)

    def _state(self, prefix: Prefix) -> list[Any]:
        """Changes if a tensor does, or if random numbers are drawn."""
        states = [prefix.version(), *generators(), bits(torch.get_rng_state())]
        if self.images.is_cuda:
            states.append(bits(torch.cuda.get_rng_state(self.images.device)))
        return states

    @torch.no_grad()
    def is_complete(self, prefix: Prefix) -> bool:
        """Whether the activations are all that the rest of the model uses."""
        activations = prefix.activations(self.whole, self.images)
        rest = partial(self.logits, prefix.of(self.model))
        try:
            found = rest(activations.clone())
            with _unchanged(self.net):  # a model may do something else in training
                self.net.train(True)
                rest(activations)
        except (RuntimeError, TypeError, ValueError):  # something else was used, and is on `meta`
            return False
        return not found.is_meta and nearly_equal(self.expected, found)


@dataclass
class _Calls:
    """Records the calls of modules."""

    model: nn.Module
    calls: list[_Call] = field(default_factory=list)

    def __enter__(self) -> _Calls:
        self._clock = 0
        self._open: list[tuple[int, Tensor | None]] = []
        self._hooks: list[Any] = []
        for name, module in self.model.named_modules():
            if name:
                begin, end = self._begin, self._end_of(name)
                self._hooks += [
                    module.register_forward_pre_hook(begin, with_kwargs=True),
                    module.register_forward_hook(end),
                ]
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._clock += 1
        one = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
        frozen = one and not args[0].requires_grad
        self._open.append((self._clock, without_values(args[0]) if frozen else None))

    def _end_of(self, name: str) -> Callable[..., None]:
        def end(module: nn.Module, args: Any, output: Any) -> None:
            begin, given = self._open.pop()
            self._clock += 1
            output = tree_map_only(Tensor, lambda each: without_values(each.detach()), output)
            self.calls.append(_Call(name, begin, self._clock, given, output))

        return end
