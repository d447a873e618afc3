"""A network seen through the coordinates that train.

Of every *covered* weight tensor only the entries at its support are trained. They are stored in
psi, and psi is all that the optimiser sees; the other entries have the value of their base. So
there is no mask, and neither momentum nor weight decay can bring a pruned weight back.

The model stays a plain nn.Module: no class is swapped and no key renamed. During a forward pass its
covered parameters are replaced by theta, which autograd follows back to psi; at any other time
`model.state_dict()` is an ordinary one (parametrised.py).

A weight may also have a transform E with parameters of its own (scores, thresholds): then the model
uses E(theta), and E.penalty(theta) is added to the loss. And it may be written in a basis: then
theta, or E(theta), are its coefficients. See transforms.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from dimred.net.coordinates import Base, Support, Supports
from dimred.net.fused import used_in_half
from dimred.net.layers import covered_names
from dimred.net.optimizer_state import OptimizerState
from dimred.net.parametrised import ParametrisedModel
from dimred.net.projections import Displacement
from dimred.net.rewritten import Rewritten
from dimred.net.seeded import Draw
from dimred.net.state import State, copied, load_state, rewind, twin
from dimred.net.transforms import Transform, coefficients
from dimred.net.untrainable import warn_if_untrainable


class Net(ParametrisedModel):
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
        super().__init__(model, names)
        self.seed, self.draws = seed, draws or {}
        # frozen by the model's builder
        self.fixed = frozenset(name for name, p in self.uncovered.items() if not p.requires_grad)
        self.displacement: Displacement | None = None  # of weights that train in a random subspace
        self.optimizer_state = OptimizerState()
        # whether a step was trained: until then, frozen weights are at their initial value
        self.has_trained = False
        # how often supports have changed: random choices depend on it
        self.support_version = 0
        self.collapsed: set[str] = set()  # layers without trained weights
        self.warned_no_gradient = False
        # What a method may remember between steps: it is saved and resumed, and never reported.
        self.method_state: State = {}
        # Numbers that become measures of the result.
        self.reported: dict[str, float] = {}

    # -- what is trained --------------------
    @property
    def dim(self) -> int:
        """How many numbers train the covered weights: psi, the parameters of transforms and bases,
        and the coordinates of a random subspace (`displacement`)."""
        parameters = (self.transforms.parameters() | self.bases.parameters()).values()
        made_of = sum(p.numel() for p in parameters if p.requires_grad)
        displaced = self.displacement.dim if self.displacement else 0
        return sum(w.dim for w in self.weights.values()) + made_of + displaced

    def trained_parameters(self) -> tuple[str, ...]:
        """The parameters of the model that train, directly or through a transform or a basis."""
        made_of: dict[str, list[nn.Parameter]] = {name: [p] for name, p in self.uncovered.items()}
        for name, w in self.weights.items():
            made_of[name] = [w.psi] if w.dim else []
        for each in (self.transforms, self.bases):
            for name, part in each.items():
                made_of[name] += part.parameters()
        trains = {name for name, parts in made_of.items() if any(p.requires_grad for p in parts)}
        return tuple(name for name, _ in self.model.named_parameters() if name in trains)

    @property
    def supports(self) -> dict[str, Support]:
        return {name: w.support for name, w in self.weights.items()}

    # -- the verbs --------------------
    @torch.no_grad()
    def keep(self, supports: Supports, base: Base = "zero", merge: bool = False) -> None:
        """Train exactly the entries at these positions; all others have the value of the base.

        An entry that trained before keeps its value and its optimiser state. One that joins starts
        at the base, without optimiser state. Weights that are not named stay as they are.

        supports: positions by parameter name; None for all entries of a parameter. Of an uncovered
            parameter, all entries train or none: name it with None.
        merge: merge all transforms first.
        """
        if merge:
            self._merge_transforms()
        initial = self.initial() if base == "init" else {}
        for name, support in supports.items():
            if name in self.uncovered:
                self.uncovered[name].requires_grad_(name not in self.fixed)
                continue
            w = self.weights[name]
            if base == "held":
                theta = w.dense().clone()
            elif base == "init":
                theta = initial[name].to(w.param, copy=True).view(-1)
            else:
                theta = w.param.new_zeros(w.size)
            now = w.dense()
            # entries outside the old support have the value of the old base, and those of them that
            # join start at the new one
            if w.support is not None and w.base != base:
                now = torch.where(w.trained(), now, theta)
            if support is not None:
                now = theta.index_copy_(0, support, now[support])
            self.move(name, now, support, base)
            warn_if_untrainable(self, name)
        self.supports_changed()

    @torch.no_grad()
    def freeze(self, supports: Supports) -> None:
        """Stop training the entries at these positions and hold them at their values.

        supports: as for `keep`. A norm's running statistics may be named, too, with None: the norm
            then normalises by them, in training as in evaluation.
        """
        buffers = dict(self.model.named_buffers())
        self.frozen_norms |= {name.rpartition(".")[0] for name in supports if name in buffers}
        self.train(self.model.training)
        for name, frozen in supports.items():
            if name in self.uncovered:
                self.uncovered[name].requires_grad_(False).grad = None
                self.optimizer_state.set(self.uncovered[name], {})
            elif name not in buffers:
                w = self.weights[name]
                trained = w.trained()
                trained[slice(None) if frozen is None else frozen] = False
                # A weight that has never trained is at its initial value. Its base is then `init`,
                # and files need not store it: the seed draws it again.
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
        """Change a weight's coordinates; its gradient and its optimiser state follow."""
        with self.optimizer_state.following(self.weights[name]):
            self.weights[name].set(theta, support, base)

    def supports_changed(self) -> None:
        """Count a change of supports. A basis trains as long as one of its weights does."""
        self.bases.train_with(self.weights)
        self.support_version += 1

    # -- transforms and bases --------------------
    def add_transforms(
        self, transforms: Mapping[str, Transform], lr: float = 1.0, decay: float | None = None
    ) -> None:
        """Give weights their transforms E. Parameters train at `lr` times the learning rate, with
        their own weight decay, or by default with that of the weights."""
        self.optimizer_state.add(self.transforms.add(transforms), lr, decay)

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
        merged = self.transforms.evaluated(self.weights)
        self.remove_transforms()
        for name, value in merged.items():
            self.move(name, value.reshape(-1), None, "zero")

    @torch.no_grad()
    def add_bases(self, bases: Mapping[str, Transform]) -> None:
        """Write weights in bases, before anything is trained: the same net, whose thetas are
        coefficients from now on. Several weights may share a basis. Its parameters are like other
        uncovered ones, and train as long as one of its weights does."""
        self.initial = coefficients(self.initial, bases)
        for name, basis in bases.items():
            w = self.weights[name]
            w.set(basis.inverse(w.theta()).view(-1), None, "zero")
        self.bases |= bases
        self.uncovered |= self.bases.parameters()

    # -- state --------------------
    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        return self.optimizer_state.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Let the state of this optimiser follow the coordinates."""
        self.optimizer_state = OptimizerState(optimizer)

    def rewrite_theta(self) -> None:
        """Keep no dense weights in memory: write them when they are used (rewritten.py). Before an
        optimiser is made."""
        half = used_in_half(self.model)
        for name, w in self.weights.items():
            self.weights[name] = Rewritten(w, name in half)

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
        load_state(self, state)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Net:
        """Move and convert model and coordinates. Before an optimiser is made."""
        thetas = self.dense_weights()
        self.model.to(device=device, dtype=dtype)
        for name, w in self.weights.items():
            w.set(thetas[name].to(w.param).view(-1), w.support, w.base)
        self.transforms.to(device, dtype)
        self.bases.to(device, dtype)
        return self

    def __deepcopy__(self, memo: dict) -> Net:
        """A twin without optimiser."""
        return twin(self, memo)
