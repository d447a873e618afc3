"""A network seen through the coordinates that train.

Of every *covered* weight tensor only the entries at its support are trained. They are stored in
psi, and psi is all that the optimiser sees; the other entries have the value of their base. So
there is no mask, and neither momentum nor weight decay can bring a pruned weight back.

The model stays a plain nn.Module: no class is swapped and no key renamed. During a forward pass its
covered parameters are replaced by theta, which autograd follows back to psi; at any other time
`model.state_dict()` is an ordinary one.

A weight may also have a transform E with parameters of its own (scores, thresholds): then the model
uses E(theta), and E.penalty(theta) is added to the loss. And it may be written in a basis: then
theta, or E(theta), are its coefficients. See transforms.py.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from dimred.net.coordinates import Base, Coordinates, Support, Supports
from dimred.net.forward import Forward
from dimred.net.gradients import DenseGradients
from dimred.net.layers import covered_names
from dimred.net.optimizer import OptimizerState
from dimred.net.projections import Displacement
from dimred.net.seeded import Draw
from dimred.net.state import State, copied, restore, rewind, twin
from dimred.net.transforms import Transform, Transforms

log = logging.getLogger(__name__)


class Net:
    """A plain model, its covered weights as coordinates, and the verbs that change them: keep,
    freeze, restore.

    include, exclude: regular expressions searched in parameter names. By default the weights of
        Conv, Linear, attention and recurrent layers are covered; `include` names the covered
        parameters instead, `exclude` takes some away. UserError if one of them matches nothing.
    shape: of the images (C, H, W). With it, a parameter is also covered by default if the model
        multiplies activations by it, whatever its module (see layers.py).
    initial: makes the initial state dict again (say, from the seed), a new one at every call.
        Without it a copy is kept.
    draws: how initial values were drawn, where known, so that a file need not store them. What is
        drawn again is compared with a checksum (state.py).

    Parameters that the model has frozen (requires_grad=False) are not covered and never train.
    """

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
        # frozen by the model's builder
        self.fixed = frozenset(name for name, p in self.uncovered.items() if not p.requires_grad)
        self.transforms, self.bases = Transforms("transform"), Transforms("basis")
        self.displacement: Displacement | None = None  # what holds the weights of a subspace
        self.forward = Forward(model)
        self.dense_gradients = DenseGradients(self.weights)
        self.optimizer_state = OptimizerState()
        # whether a step was trained: until then, frozen weights are at their initial value
        self.has_trained = False
        # how often supports have changed: random choices depend on it
        self.support_version = 0
        self.frozen_norms: set[str] = set()  # they use running statistics, in training too
        self.collapsed: set[str] = set()  # layers without trained weights
        self.warned_no_gradient = False
        # What a method may remember between steps: it is saved and resumed, and never reported.
        self.method_state: State = {}
        # Numbers that become measures of the result.
        self.reported: dict[str, float] = {}

    # -- the function --------------------
    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of a batch of images (N, C, H, W)."""
        with self.weights_in_place() as model:
            return model(x)

    @contextmanager
    def weights_in_place(
        self, thetas: Mapping[str, Tensor] | None = None, channels_last: bool = False
    ) -> Iterator[nn.Module]:
        """The model with E(theta) in place, for its own theta or another. Where activations are
        recomputed in the backward pass, that pass has to be within the block, too.

        channels_last: give convolutions their weights in this layout, which is faster. Scores do
        not use it: on a CPU, some of its kernels are less exact (docs/channels_last.md)."""
        if thetas is None:
            thetas = {name: w.theta() for name, w in self.weights.items()}
        values = {name: self.effective(name, theta) for name, theta in thetas.items()}
        with self.forward.with_weights(values, channels_last) as model:
            yield model

    def effective(self, name: str, theta: Tensor) -> Tensor:
        """The weight that the model uses: theta by its transform and its basis."""
        return self.bases.apply(name, self.transforms.apply(name, theta))

    def dense_weights(self) -> dict[str, Tensor]:
        """theta of every covered weight, detached. These are the model's own tensors: valid until
        the next change."""
        return {name: w.dense().view(w.param.shape) for name, w in self.weights.items()}

    @torch.no_grad()
    def effective_weights(self) -> dict[str, Tensor]:
        """The covered weights as the model uses them, by their transforms and bases."""
        return {name: self.effective(name, theta) for name, theta in self.dense_weights().items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The plain model's state dict: the model's own `load_state_dict` takes it, with no trace
        of coordinates. Tied weights have an entry under each of their names."""
        effective = self.effective_weights()
        values = {id(self.weights[name].param): value for name, value in effective.items()}
        names = self.model.named_parameters(remove_duplicate=False)
        return self.model.state_dict() | {
            name: values[id(p)] for name, p in names if id(p) in values
        }

    def train(self, mode: bool = True) -> None:
        """Training mode (batch statistics, dropout, random transforms) or evaluation mode."""
        self.model.train(mode)
        for name in self.frozen_norms:
            self.model.get_submodule(name).eval()
        self.transforms.train(mode)

    def penalty(self) -> Tensor | float:
        """What the transforms add to the loss."""
        return sum(
            each.penalty(self.weights[name].theta())
            for name, each in self.transforms.items()
            if each.has_penalty
        )

    def compile(self, backend: str = "inductor") -> None:
        """Compile the model; supports may still change."""
        self.forward.compile(backend)

    # -- what is trained --------------------
    @property
    def dim(self) -> int:
        """How many numbers train the covered weights: psi, the parameters of their transforms and
        bases, and those that displace them."""
        parameters = (self.transforms.parameters() | self.bases.parameters()).values()
        made_of = sum(p.numel() for p in parameters if p.requires_grad)
        displaced = self.displacement.dim if self.displacement else 0
        return sum(w.dim for w in self.weights.values()) + made_of + displaced

    @property
    def total(self) -> int:
        """How many covered weights there are."""
        return sum(w.size for w in self.weights.values())

    @property
    def supports(self) -> dict[str, Support]:
        return {name: w.support for name, w in self.weights.items()}

    def parameters(self) -> dict[str, nn.Parameter]:
        """What an optimiser trains: psi under its weight's name, uncovered parameters, and those of
        transforms and bases."""
        psi = {name: w.psi for name, w in self.weights.items()}
        return psi | self.uncovered | self.transforms.parameters()

    # -- the verbs --------------------
    @torch.no_grad()
    def keep(self, supports: Supports, base: Base = "zero", merge: bool = False) -> None:
        """Train exactly these; the other entries have the value of their base. Survivors keep their
        value and optimiser state; a coordinate that joins starts from its base without any. Weights
        that are not named stay as they are; uncovered parameters may be named with None, for all of
        them. merge: first merge all transforms."""
        if merge:
            self._merge_transforms()
        initial = self.initial() if base == "init" else {}
        for name, support in supports.items():
            if name in self.uncovered:
                self.uncovered[name].requires_grad_(name not in self.fixed)
                continue
            w = self.weights[name]
            theta = w.dense().clone() if base == "held" else w.param.new_zeros(w.size)
            if initial:
                theta = initial[name].to(w.param, copy=True).view(-1)
            now = w.dense()
            if w.support is not None and w.base != base:
                now = torch.where(w.trained(), now, theta)
            if support is not None:
                now = theta.index_copy_(0, support, now[support])
            self.move(name, now, support, base)
            self._warn_of_collapse(name)
            self._warn_no_gradient(name)
        self.supports_changed()

    @torch.no_grad()
    def freeze(self, supports: Supports) -> None:
        """Stop training these and hold them at their values. Uncovered parameters may be named with
        None, for all of them, and so may running statistics: their norm uses them from now on, in
        training too."""
        buffers = dict(self.model.named_buffers())
        self.frozen_norms |= {name.rpartition(".")[0] for name in supports if name in buffers}
        self.train(self.model.training)
        for name, frozen in supports.items():
            if name in self.uncovered:
                self.uncovered[name].requires_grad_(False).grad = None
                self.optimizer_state.of(self.uncovered[name]).clear()
            elif name not in buffers:
                w = self.weights[name]
                trained = w.trained()
                trained[slice(None) if frozen is None else frozen] = False
                moved = self.has_trained or (w.support is not None and w.base != "init")
                support = trained.nonzero().view(-1)
                self.move(name, w.dense(), support, "held" if moved else "init")
        self.supports_changed()

    @torch.no_grad()
    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Rewind weights, norms and the optimiser's state to a `state()`. The same coordinates
        train as before the call."""
        rewind(self, snapshot)

    @torch.no_grad()
    def assign(self, values: Mapping[str, Tensor]) -> None:
        """Give trained entries of weights, and uncovered parameters, other values, each in the
        shape of its parameter. What is not trained stays."""
        for name, value in values.items():
            if name in self.uncovered:
                self.uncovered[name].copy_(value)
            else:
                w = self.weights[name]
                w.psi.copy_(w.gather(value.to(w.param).reshape(-1)))

    def move(self, name: str, theta: Tensor, support: Support, base: Base) -> None:
        """Change a weight's coordinates; its optimiser state follows. psi becomes a new parameter:
        autograd remembers the shape of the old one as long as any graph with it is alive."""
        w = self.weights[name]
        old, state = w.psi, self.optimizer_state.of(w.psi)
        dense = {key: w.scatter(value) for key, value in state.items() if value.shape == old.shape}
        grad = None if old.grad is None else w.scatter(old.grad)
        w.set(theta, support, base)
        # at the pause of a step, that step goes on with its gradient
        w.psi.grad = None if grad is None else w.gather(grad)
        followed = {key: w.gather(value) for key, value in dense.items()}
        self.optimizer_state.replace(old, w.psi, state | followed)

    def supports_changed(self) -> None:
        """Count a change of supports. A basis trains as long as one of its weights does."""
        for basis in dict.fromkeys(self.bases.values()):
            trains = any(self.weights[name].dim for name in self.bases if self.bases[name] is basis)
            for p in basis.parameters():
                p.requires_grad_(trains).grad = p.grad if trains else None
        self.support_version += 1

    def _warn_of_collapse(self, name: str) -> None:
        w = self.weights[name]
        if w.dim:
            self.collapsed.discard(name)
        elif name not in self.collapsed:
            self.collapsed.add(name)
            log.warning(
                "layer collapse: none of the %d weights of %s are left to train", w.size, name
            )

    def _warn_no_gradient(self, name: str) -> None:
        basis = self.bases.get(name)
        stuck = basis is not None and basis.zero_gradient_at_zero
        if stuck and not self.warned_no_gradient and not self.weights[name].psi.all():
            self.warned_no_gradient = True
            log.warning(
                "weights of %s join at zero, where this basis has no gradient: they will not "
                "train. Choose a method that grows no weights, or basis=none",
                name,
            )

    # -- transforms and bases --------------------
    def add_transforms(
        self, transforms: Mapping[str, Transform], lr: float = 1.0, decay: float | None = None
    ) -> None:
        """Give weights their transforms E. Parameters train at `lr` times the learning rate, with
        their own weight decay, or by default with that of the weights."""
        known = {id(p) for p in self.transforms.parameters().values()}
        self.transforms |= transforms
        added = [p for p in self.transforms.parameters().values() if id(p) not in known]
        self.optimizer_state.add(added, lr, decay)

    def remove_transforms(self) -> None:
        """Compute with theta itself again."""
        self.optimizer_state.remove(self.transforms.parameters().values())
        self.transforms.clear()

    @torch.no_grad()
    def merge_transforms(self) -> None:
        """Let E(theta) be the weights, all of which train, without their transforms."""
        self._merge_transforms()
        self.supports_changed()

    def _merge_transforms(self) -> None:
        values = {
            name: each.eval()(self.weights[name].theta()) for name, each in self.transforms.items()
        }
        self.remove_transforms()
        for name, value in values.items():
            self.move(name, value.reshape(-1), None, "zero")

    @torch.no_grad()
    def add_bases(self, bases: Mapping[str, Transform]) -> None:
        """Write weights in bases, before anything is trained: the same net, whose thetas are
        coefficients from now on. Several weights may share a basis. Its parameters are like other
        uncovered ones, and train as long as one of its weights does."""
        initial, first = self.initial, copy.deepcopy(dict(bases))
        for basis in first.values():
            basis.requires_grad_(False)

        def coefficients() -> dict[str, Tensor]:
            values = dict(initial())
            return values | {name: basis.inverse(values[name]) for name, basis in first.items()}

        self.initial = coefficients
        for name, basis in bases.items():
            w = self.weights[name]
            w.set(basis.inverse(w.theta()).view(-1), None, "zero")
        self.bases |= bases
        self.uncovered |= self.bases.parameters()

    # -- gradients --------------------
    def zero_grad(self) -> None:
        """Forget the gradients. At the pause of a training step: take no step."""
        for parameter in self.parameters().values():
            parameter.grad = None

    def retain_grad(self, on: bool) -> None:
        """Keep the dense gradients of the next backward passes (D numbers a weight), or stop."""
        self.dense_gradients.keep(on)

    def grads(self) -> dict[str, Tensor]:
        """Dense gradients of the last backward pass: one value for every covered weight, trained or
        not. UserError unless they were retained."""
        return self.dense_gradients.of_all()

    # -- state --------------------
    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        return self.optimizer_state.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Let the state of this optimiser follow the coordinates."""
        self.optimizer_state = OptimizerState(optimizer)

    def cache_initial(self) -> None:
        """Keep the initial weights in memory, where they are needed in many steps."""
        device = next(self.model.parameters()).device
        initial = {name: value.to(device) for name, value in self.initial().items()}
        self.initial = lambda: initial

    def state(self) -> State:
        """All of the net, copied, as flat named tensors; see state.py for their names."""
        return copied(self)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Return to a `state()`: coordinates, values and the optimiser's state."""
        restore(self, state)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Net:
        """Move and convert model and coordinates. Before an optimiser is made."""
        self.dense_weights()
        self.model.to(device=device, dtype=dtype)
        for w in self.weights.values():
            w.set(w.param.view(-1), w.support, w.base)
        self.transforms.to(device, dtype)
        self.bases.to(device, dtype)
        return self

    def __deepcopy__(self, memo: dict) -> Net:
        """A twin without optimiser."""
        return twin(self, memo)
