"""A network seen through the coordinates that train. In plain words:

Of every *covered* weight tensor only the entries listed in its support are trained. They live in
psi, and psi is all that the optimiser ever sees; the other entries read their base. So there is no
mask, and nothing by which momentum, weight decay or a forgotten multiplication could bring a pruned
weight back.

The model stays a plain nn.Module: no class is swapped and no key renamed. While it computes, its
covered parameters are replaced by theta, which autograd follows back to psi; at any other time
`model.state_dict()` is an ordinary one.

A weight may also have a map E, an nn.Module with parameters of its own (scores, thresholds, a
filter basis): then the model uses E(theta), and E.penalty(theta), if there is one, is added to the
loss. And it may be written in a basis: then theta, and what E makes of it, are its coefficients.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from dimred.errors import UserError
from dimred.net.batchnorm import applies_to, exact_statistics
from dimred.net.coordinates import Base, Coordinates, Support, Supports
from dimred.net.cover import covered_names
from dimred.net.seeded import Draw
from dimred.net.state import State, below, capture, restore, restore_rest

log = logging.getLogger(__name__)


class Net:
    """A plain model, its covered weights as coordinates, and the verbs that change them: keep,
    freeze, restore.

    include, exclude: regular expressions searched in parameter names. By default the weights of
        Conv, Linear, attention and recurrent layers are covered; `include` names the covered
        parameters instead, `exclude` takes some away. UserError if one of them matches nothing.
    shape: of the images (C, H, W). With it, a parameter is also covered by default if the model
        multiplies activations by it, whatever its module (see cover.py).
    initial: makes the initial state dict again (say, from the seed), a new one at every call.
        Without it a copy is kept.
    Parameters that the model has frozen (requires_grad=False) are not covered and never train.
    draws: how parameters were drawn, as far as it is known; who regenerates one compares the
    values."""

    def __init__(
        self,
        model: nn.Module,
        *,
        seed: int = 0,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        initial: Callable[[], Mapping[str, Tensor]] | None = None,
        draws: Mapping[str, Draw] | None = None,
        shape: Sequence[int] | None = None,
    ) -> None:
        names = covered_names(model, include, exclude, shape)
        self.initial = initial or partial(copy.deepcopy, copy.deepcopy(model.state_dict()))
        self.model, self.seed, self.draws = model, seed, draws or {}
        parameters = dict(model.named_parameters())
        self.weights = {name: Coordinates(parameters[name]) for name in names}
        self.uncovered = {name: p for name, p in parameters.items() if name not in self.weights}
        # by the model
        self.fixed = frozenset(name for name, p in self.uncovered.items() if not p.requires_grad)
        self.transforms: dict[str, nn.Module] = {}
        self.bases: dict[str, nn.Module] = {}
        self.optimizer: torch.optim.Optimizer | None = None  # its memory follows the coordinates
        self.has_trained = (
            False  # has a step been trained? until then, what is frozen is at its initial value
        )
        self.support_version = (
            0  # how often supports have changed: the "time" of their random choices
        )
        self.collapsed: set[str] = set()
        self.warned_no_gradient = (
            False  # do trained weights rest where their basis has no gradient?
        )
        # what a method has to remember from step to step; single numbers become results
        self.notes: State = {}
        self.frozen_norms: set[str] = (
            set()
        )  # norms that use their statistics as they are, in training too
        self.merged = 0  # how many parameters of maps made what `merge_transforms` holds
        self._grads: dict[str, Tensor] | None = None
        self._compiled: nn.Module | None = None

    # -- the function --------------------
    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of a batch of images (N, C, H, W)."""
        with self.weights_in_place() as model:
            return model(x)

    @contextmanager
    def weights_in_place(
        self, thetas: Mapping[str, Tensor] | None = None, channels_last: bool = False
    ) -> Iterator[nn.Module]:
        """The model with E(theta) in place, for its own theta or another. What recomputes
        activations in its backward pass needs that pass within the block too.

        channels_last: give convolutions their weights in this layout, which is faster; positions
        know nothing of it. Scores leave it out: on a CPU, some kernels for it are less exact
        (docs/channels_last.md).

        `torch.func.functional_call` does the same at 20 us a weight, 4 % of a step of
        LeNet-300-100; this takes 1 us."""
        thetas = {name: w.theta() for name, w in self.weights.items()} if thetas is None else thetas
        values = {name: self._value(name, theta) for name, theta in thetas.items()}
        if channels_last:  # by `to`, which settles the strides even where there is one channel
            values = {
                name: value.to(memory_format=torch.channels_last) if value.dim() == 4 else value
                for name, value in values.items()
            }
        norms = self._norms() if channels_last else ()
        with self.placed(values), exact_statistics(norms):
            yield self._compiled or self.model

    @contextmanager
    def placed(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Let the modules have these tensors in place of their covered weights."""
        own = [
            (slots, key, slots[key], values[name])
            for name in values
            for slots, key in self._slots(name)
        ]
        try:
            for slots, key, _, theta in own:
                slots[key] = theta
            yield
        finally:
            for slots, key, param, _ in own:
                slots[key] = param

    def _value(self, name: str, theta: Tensor) -> Tensor:
        theta = self.transforms[name](theta) if name in self.transforms else theta
        return self.bases[name](theta) if name in self.bases else theta

    def _slots(self, name: str) -> list[tuple[dict[str, Any], str]]:
        """Where the modules of the model hold a parameter (several places if it is tied)."""
        if not hasattr(self, "_places"):
            by_id: dict[int, list[tuple[dict[str, Any], str]]] = {}
            for module in self.model.modules():
                for key, parameter in module._parameters.items():
                    by_id.setdefault(id(parameter), []).append((module._parameters, key))
            self._places = {n: by_id[id(p)] for n, p in self.model.named_parameters()}
        return self._places[name]

    def _norms(self) -> list[nn.BatchNorm2d]:
        """The norms whose statistics need help in channels_last; a compiled model has kernels of
        its own."""
        if not hasattr(self, "_batchnorms"):
            self._batchnorms = [module for module in self.model.modules() if applies_to(module)]
        return [] if self._compiled else self._batchnorms

    def compile(self, backend: str = "inductor") -> None:
        """Let torch.compile translate the model; theta is written outside of it, so supports may
        change freely."""
        # the translation looks whether theta, where it expects a parameter, has a .grad; it rightly
        # has none
        warnings.filterwarnings(
            "ignore", message="The .grad attribute of a Tensor that is not a leaf"
        )
        self._compiled = cast(nn.Module, torch.compile(self.model, backend=backend))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Net:
        """Move and convert model and coordinates. Before an optimiser is made."""
        self.dense_weights()
        self.model.to(device=device, dtype=dtype)
        for w in self.weights.values():
            w.set(w.param.view(-1), w.support, w.base)
        for each in (*self.transforms.values(), *self.bases.values()):
            each.to(device=device, dtype=dtype)
        return self

    def __deepcopy__(self, memo: dict) -> Net:
        """A twin without optimiser. Copied tensors no longer share memory, so psi is tied to its
        buffer anew."""
        twin = copy.copy(self)
        for cached in ("_places", "_batchnorms"):
            twin.__dict__.pop(cached, None)
        detach_computed(self.model)
        twin.model, twin.transforms, twin.bases = copy.deepcopy(
            (self.model, self.transforms, self.bases), memo
        )
        twin.collapsed, twin.frozen_norms = set(self.collapsed), set(self.frozen_norms)
        twin.notes = {name: note.clone() for name, note in self.notes.items()}
        parameters = dict(twin.model.named_parameters())
        twin.weights = {name: Coordinates(parameters[name]) for name in self.weights}
        twin.uncovered = {
            name: p
            for name, p in (parameters | twin.basis_parameters()).items()
            if name in self.uncovered
        }
        twin.optimizer = twin._compiled = twin._grads = None
        for name, w in self.weights.items():
            twin.weights[name].set(w.dense(), w.support, w.base)
        return twin

    # -- what is trained --------------------
    @property
    def dim(self) -> int:
        """How many numbers train the covered weights: psi, and the parameters of their maps and
        bases."""
        made_of = (*self.transform_parameters().values(), *self.basis_parameters().values())
        mapped = sum(p.numel() for p in made_of if p.requires_grad)
        return sum(w.dim for w in self.weights.values()) + mapped + self.merged

    @property
    def total(self) -> int:
        """How many covered weights there are."""
        return sum(w.size for w in self.weights.values())

    @property
    def supports(self) -> dict[str, Support]:
        return {name: w.support for name, w in self.weights.items()}

    def parameters(self) -> dict[str, nn.Parameter]:
        """What an optimiser trains: psi under its weight's name, what is not covered, and the
        parameters of maps."""
        return (
            {name: w.psi for name, w in self.weights.items()}
            | self.uncovered
            | self.transform_parameters()
        )

    def transform_parameters(self) -> dict[str, nn.Parameter]:
        """Each once, though maps may share them."""
        named = {
            id(p): (f"transform:{name}.{key}", p)
            for name, each in reversed(self.transforms.items())
            for key, p in each.named_parameters()
            if p.requires_grad
        }
        return dict(named.values())

    def basis_parameters(self) -> dict[str, nn.Parameter]:
        named = {
            id(p): (f"basis:{name}.{key}", p)
            for name, each in reversed(self.bases.items())
            for key, p in each.named_parameters()
        }
        return dict(named.values())

    def _freeze_bases(self) -> None:
        for basis in dict.fromkeys(self.bases.values()):
            trains = any(
                self.weights[name].dim for name, each in self.bases.items() if each is basis
            )
            for p in basis.parameters():
                p.requires_grad_(trains).grad = p.grad if trains else None

    def dense_weights(self) -> dict[str, Tensor]:
        """The covered weights, dense and detached. They are the model's own tensors: valid until
        the next change."""
        return {name: w.dense().view(w.param.shape) for name, w in self.weights.items()}

    @torch.no_grad()
    def effective_weights(self) -> dict[str, Tensor]:
        """The covered weights as the model uses them, E(theta), written out."""
        return {name: self._value(name, theta) for name, theta in self.dense_weights().items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The plain model's state dict: the model's own `load_state_dict` takes it, with no trace
        of coordinates. Tied weights are there under all of their names."""
        values = {
            id(self.weights[name].param): value for name, value in self.effective_weights().items()
        }
        names = self.model.named_parameters(remove_duplicate=False)
        return self.model.state_dict() | {
            name: values[id(p)] for name, p in names if id(p) in values
        }

    def train(self, mode: bool = True) -> None:
        """Training mode (batch statistics, dropout, random maps) or evaluation mode."""
        self.model.train(mode)
        for name in self.frozen_norms:
            self.model.get_submodule(name).eval()
        for each in self.transforms.values():
            each.train(mode)

    # -- the verbs --------------------
    @torch.no_grad()
    def keep(self, supports: Supports, base: Base = "zero") -> None:
        """Train exactly these; the others read their base. Survivors keep their value and the
        optimiser's memory, a coordinate that joins starts from its base without any. What is not
        named stays as it is; parameters that are not covered may be named with None, for all of
        them."""
        initial = self.initial() if base == "init" else {}
        for name, support in supports.items():
            if name in self.uncovered:
                self.uncovered[name].requires_grad_(name not in self.fixed)
                continue
            w = self.weights[name]
            theta = (
                initial[name].to(w.param, copy=True).view(-1)
                if initial
                else w.param.new_zeros(w.size)
            )
            theta = w.dense().clone() if base == "held" else theta
            now = (
                w.dense()
                if w.support is None or w.base == base
                else torch.where(w.trained(), w.dense(), theta)
            )
            self.move(
                name,
                now if support is None else theta.index_copy_(0, support, now[support]),
                support,
                base,
            )
            self._report_collapse(name)
            self._warn_no_gradient(name)
        self._freeze_bases()
        self.support_version += 1

    @torch.no_grad()
    def freeze(self, supports: Supports) -> None:
        """Stop training these and hold them where they are; theta does not move. Parameters that
        are not covered may
        be named with None, for all of them, and so may running statistics: their norm uses them
        from now on."""
        buffers = dict(self.model.named_buffers())
        self.frozen_norms |= {name.rpartition(".")[0] for name in supports if name in buffers}
        self.train(self.model.training)
        for name, frozen in supports.items():
            if name in buffers:
                continue
            if name in self.uncovered:
                self.uncovered[name].requires_grad_(False).grad = None
                self.memory_of(self.uncovered[name]).clear()
                continue
            w = self.weights[name]
            trained = w.trained()
            trained[slice(None) if frozen is None else frozen] = False
            base: Base = (
                "held"
                if self.has_trained or (w.support is not None and w.base != "init")
                else "init"
            )
            self.move(name, w.dense(), trained.nonzero().view(-1), base)
        self._freeze_bases()
        self.support_version += 1

    @torch.no_grad()
    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Rewind weights, norms and the optimiser's memory to a `state()`; which of them train
        stays as it is now."""
        then = copy.deepcopy(self)
        then.load(snapshot)
        for name, w in self.weights.items():
            old = then.weights[name]
            self.move(name, torch.where(w.trained(), old.dense(), w.dense()), w.support, w.base)
            self.remember(
                w.psi,
                {
                    key: w.gather(old.scatter(value)) if value.shape == old.psi.shape else value
                    for key, value in below(snapshot, f"optimizer/{name}/").items()
                },
            )
        restore_rest(self, snapshot)

    def add_transforms(
        self, transforms: Mapping[str, nn.Module], lr: float = 1.0, decay: float | None = None
    ) -> None:
        """Give weights their maps E. Their parameters train at `lr` times the learning rate, with
        their own weight decay, or by default with that of the weights."""
        known = {id(p) for p in self.transform_parameters().values()}
        self.transforms |= transforms
        fresh = [p for p in self.transform_parameters().values() if id(p) not in known]
        if self.optimizer and fresh:
            decay = self.optimizer.param_groups[0]["weight_decay"] if decay is None else decay
            self.optimizer.add_param_group({"params": fresh, "scale": lr, "weight_decay": decay})

    @torch.no_grad()
    def add_bases(self, bases: Mapping[str, nn.Module]) -> None:
        """Write weights in bases, before anything is trained: the same net, whose thetas are
        coefficients from now on. A basis makes weights of coefficients when it is called, and by
        `coefficients` the reverse. Several weights may share one. Its parameters are like others
        that are not covered, and train as long as one of its weights does."""
        initial, first = self.initial, copy.deepcopy(dict(bases))
        for basis in first.values():
            basis.requires_grad_(False)
        self.initial = lambda: {
            name: first[name].coefficients(value) if name in first else value  # type: ignore
            for name, value in initial().items()
        }
        for name, basis in bases.items():
            w = self.weights[name]
            w.set(basis.coefficients(w.theta()).view(-1), None, "zero")  # type: ignore[operator]
        self.bases |= bases
        self.uncovered |= self.basis_parameters()

    @torch.no_grad()
    def merge_transforms(self, supports: Supports | None = None, hold: bool = False) -> None:
        """Replace every map by what it makes of theta. Only these supports train from then on, by
        default the weights that are not zero, and the others are zero: so the function stays the
        same where the maps make them so. With `hold` the weights are frozen where they are, and it
        is the maps' parameters that count."""
        made_of = self.transform_parameters().values()
        self.merged += sum(p.numel() for p in made_of) if hold else 0
        self._forget(made_of)
        for name in list(self.transforms):
            value = self.transforms.pop(name).eval()(self.weights[name].theta()).reshape(-1)
            if hold:
                self.move(name, value, value.new_empty(0, dtype=torch.int64), "held")
                continue
            support = value.nonzero().view(-1) if supports is None else supports[name]
            if support is not None:
                value = torch.zeros_like(value).index_copy_(0, support, value[support])
            self.move(name, value, support, "zero")
            self._report_collapse(name)
            self._warn_no_gradient(name)
        self._freeze_bases()
        self.support_version += 1

    def _forget(self, parameters: Iterable[nn.Parameter]) -> None:
        """Let the optimiser train these no more."""
        gone = {id(p) for p in parameters}
        for group in self.optimizer.param_groups if self.optimizer else ():
            for p in group["params"]:
                if id(p) in gone:
                    self.optimizer.state.pop(p, None)  # type: ignore[union-attr]
            group["params"] = [p for p in group["params"] if id(p) not in gone]

    def penalty(self) -> Tensor | float:
        """What the maps add to the loss."""
        return sum(
            each.penalty(self.weights[name].theta())  # type: ignore
            for name, each in self.transforms.items()
            if hasattr(each, "penalty")
        )

    def move(self, name: str, theta: Tensor, support: Support, base: Base) -> None:
        """Change a weight's coordinates, and the optimiser's memory of them alike. psi is a new
        Parameter: autograd remembers the shape of the old one for as long as any graph with it is
        alive."""
        w = self.weights[name]
        old, memory = w.psi, self.memory_of(w.psi)
        dense = {key: w.scatter(value) for key, value in memory.items() if value.shape == old.shape}
        grad = None if old.grad is None else w.scatter(old.grad)
        w.set(theta, support, base)
        w.psi.grad = (
            None if grad is None else w.gather(grad)
        )  # at a pause, the step in progress goes on with it
        if self.optimizer:
            for group in self.optimizer.param_groups:
                group["params"] = [w.psi if p is old else p for p in group["params"]]
            self.optimizer.state.pop(old, None)
            self.remember(w.psi, memory | {key: w.gather(value) for key, value in dense.items()})

    def memory_of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """What the optimiser remembers of a parameter (momentum, second moments, ...)."""
        return (
            self.optimizer.state[parameter]
            if self.optimizer and parameter in self.optimizer.state
            else {}
        )

    def remember(self, parameter: nn.Parameter, memory: Mapping[str, Tensor]) -> None:
        if self.optimizer:
            self.optimizer.state.pop(parameter, None)
        if self.optimizer and memory:
            fused = self.optimizer.defaults.get(
                "fused"
            )  # else Adam keeps its step count on the CPU
            self.optimizer.state[parameter] = {
                key: value.to(parameter.device) if fused or value.dim() else value
                for key, value in memory.items()
            }

    def _report_collapse(self, name: str) -> None:
        w = self.weights[name]
        if w.dim:
            self.collapsed.discard(name)
        elif name not in self.collapsed:
            self.collapsed.add(name)
            log.warning(
                "layer collapse: none of the %d weights of %s are left to train", w.size, name
            )

    def _warn_no_gradient(self, name: str) -> None:
        """A basis may have no gradient at zero (powerpropagation): what joins there does not
        move."""
        still = getattr(self.bases.get(name), "zero_gradient_at_zero", False)
        if still and not self.warned_no_gradient and not self.weights[name].psi.all():
            self.warned_no_gradient = True
            log.warning(
                "weights of %s join at zero, where this basis has no gradient: they will not train. Choose a "
                "method that grows no weights, or basis=none",
                name,
            )

    # -- gradients --------------------
    def zero_grad(self) -> None:
        """Forget the gradients. At the pause of a training step: take no step."""
        for parameter in self.parameters().values():
            parameter.grad = None

    def retain_grad(self, on: bool) -> None:
        """Keep the dense gradients of the coming backward passes (D numbers a weight), or stop
        keeping them."""
        self._grads = {} if on else None
        for name, w in self.weights.items():
            w.hook = (
                _adder(self._grads, name)
                if self._grads is not None and w.support is not None
                else None
            )

    def grads(self) -> dict[str, Tensor]:
        """Dense gradients of the last backward pass: one value for every covered weight, trained or
        not."""
        if self._grads is None:
            raise UserError(
                "dense gradients were not kept in this step: ask for them by train.steps(dense_grad=...)"
            )
        return {
            name: (w.psi.grad if w.support is None else self._grads[name]).view(w.param.shape)  # type: ignore
            for name, w in self.weights.items()
        }

    # -- state --------------------
    def state(self) -> State:
        """All there is to the net, copied, as flat named tensors; see dimred/net/state.py for their
        names."""
        return capture(self)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Be as `state()` was: coordinates, values and the optimiser's memory."""
        restore(self, state)

    def state_bytes(self) -> int:
        """Bytes of training state of the covered weights: theta, psi, positions, gradient and
        optimiser memory."""
        tensors = [
            t
            for w in self.weights.values()
            for t in (
                w.psi,
                w.psi,
                w.support,
                w.param if w.support is not None else None,
                *self.memory_of(w.psi).values(),
            )
        ]
        made_of = (*self.transform_parameters().values(), *self.basis_parameters().values())
        tensors += [t for p in made_of for t in (p, p, *self.memory_of(p).values())]
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def detach_computed(model: nn.Module) -> None:
    """Detach what modules have computed and keep as attributes (the old weight_norm its weight): no
    graph is copied."""
    for module in model.modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                vars(module)[key] = value.detach()


def _adder(grads: dict[str, Tensor], name: str) -> Callable[[Tensor], None]:
    def add(grad: Tensor) -> None:
        grads[name] = grads[name] + grad if name in grads else grad.contiguous()

    return add
