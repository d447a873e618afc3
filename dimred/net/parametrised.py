"""A plain model that computes with theta: the function that a net is, whatever of it is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dimred.net.coordinates import Coordinates
from dimred.net.forward import Forward
from dimred.net.gradients import DenseGradients
from dimred.net.rewritten import absentees, written_when_read
from dimred.net.transforms import Transforms

if TYPE_CHECKING:
    from dimred.net.sparse import SparseArithmetic


class ParametrisedModel:
    """A model whose covered weights are E(theta), written in their basis where they have one. See
    coordinates.py for theta, transforms.py for E and bases, forward.py for how they reach the
    model."""

    def __init__(self, model: nn.Module, covered: Iterable[str]) -> None:
        self.model = model
        parameters = dict(model.named_parameters())
        self.weights = {name: Coordinates(parameters[name]) for name in covered}
        self.uncovered = {name: p for name, p in parameters.items() if name not in self.weights}
        self.transforms, self.bases = Transforms("transform"), Transforms("basis")
        self.forward = Forward(model)
        self.dense_gradients = DenseGradients(self.weights)
        #: multiplies by trained entries alone, where that is set
        self.arithmetic: SparseArithmetic | None = None
        self.frozen_norms: set[str] = set()  # they use running statistics, in training too

    @property
    def total(self) -> int:
        """How many covered weights there are."""
        return sum(w.size for w in self.weights.values())

    def parameters(self) -> dict[str, nn.Parameter]:
        """What an optimiser trains: psi under its weight's name, uncovered parameters, and those of
        transforms and bases."""
        psi = {name: w.psi for name, w in self.weights.items()}
        return psi | self.uncovered | self.transforms.parameters()

    # -- the forward pass --------------------
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
        sparse: Mapping[str, Tensor] = {}
        when_read: AbstractContextManager[None] = nullcontext()
        if thetas is None:
            sparse = self.arithmetic.weights(self) if self.arithmetic else {}
            missing = absentees(self.weights)
            others = self.weights.keys() - sparse.keys() - missing.keys()
            thetas = {name: self.weights[name].theta() for name in self.weights if name in others}
            if missing:
                when_read = written_when_read(self, channels_last)
        values = {name: self.effective(name, theta) for name, theta in thetas.items()}
        with self.forward.with_weights(values, channels_last, sparse) as model, when_read:
            yield model

    def penalty(self) -> Tensor | float:
        """What the transforms add to the loss."""
        return sum(
            each.penalty(self.weights[name].theta())
            for name, each in self.transforms.items()
            if each.has_penalty
        )

    def train(self, mode: bool = True) -> None:
        """Training mode (batch statistics, dropout, random transforms) or evaluation mode."""
        self.model.train(mode)
        for name in self.frozen_norms:
            self.model.get_submodule(name).eval()
        self.transforms.train(mode)

    def compile(self, backend: str = "inductor", retained: bool = False) -> None:
        """Compile the model; supports may still change. retained: a backward pass may retain its
        graph, as that of a micro-batch does."""
        self.forward.compile(backend, retained)

    # -- the values of weights --------------------
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
        out = self.model.state_dict()  # with the versions of modules, which some of them need
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            if id(parameter) in values:
                out[name] = values[id(parameter)]
        return out

    # -- gradients --------------------
    def zero_grad(self) -> None:
        """Forget the gradients. At the pause of a training step: take no step."""
        for parameter in self.parameters().values():
            parameter.grad = None
        self.dense_gradients.replace({})

    def retain_grad(self, on: bool) -> None:
        """Keep the dense gradients of the next backward passes (D numbers a weight), or stop."""
        self.dense_gradients.keep(on)

    def grads(self) -> dict[str, Tensor]:
        """Dense gradients of the last backward pass: one value for every covered weight, trained or
        not. UserError unless they were retained."""
        return self.dense_gradients.of_all()
