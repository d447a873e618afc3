"""A net as flat named tensors, and back; and its copies. The names of the tensors:

psi/NAME            the d trained numbers of a weight
BASE/NAME           their d positions; BASE is that of the other entries (zero, init, held). None if
                    all are trained
theta/NAME          the whole weight (D), where its base is `held`; where it is `init`, only in the
                    files of finished runs, and only if no draw of the seed gives it
displacement/KIND   the numbers z of a displacement by a projection of this kind and the net's seed
uncovered/NAME      parameters and buffers that are not covered;  frozen/NAME: does not train
buffer/NAME         buffers that are not in the model's state dict (persistent=False)
collapsed/NAME      layers without trained weights
frozen_norms/NAME   norms that use their running statistics in training, too
transform/NAME/KEY  of the weight's transform;  basis/NAME/KEY: of its basis
optimizer/NAME/KEY  the optimiser's state of a parameter
method/KEY          what the method remembers;  reported/KEY: measures of the result
counters            how often supports changed, and whether a step was trained
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast, get_args

import torch
from torch import Tensor, nn

from dimred.net.coordinates import Base, Coordinates
from dimred.net.forward import Forward
from dimred.net.gradients import DenseGradients
from dimred.net.optimizer_state import OptimizerState
from dimred.net.projections import Displacement, Kind
from dimred.net.seeded import Draw, bits

if TYPE_CHECKING:
    from dimred.net import Net

State = dict[str, Tensor]


def copied(net: Net) -> State:
    """All of a net, copied, on its device."""
    out: State = {}
    for name, w in net.weights.items():
        out[f"psi/{name}"] = w.psi.detach().clone()
        if w.support is not None:
            out[f"{w.base}/{name}"] = w.support.to(torch.int32 if w.size < 2**31 else torch.int64)
        if w.support is not None and w.base == "held":
            out[f"theta/{name}"] = w.dense().clone()
    if net.displacement:
        out[f"displacement/{net.displacement.kind}"] = net.displacement.z.clone()
    out |= {f"uncovered/{name}": value.detach().clone() for name, value in _uncovered(net).items()}
    out |= {f"buffer/{name}": value.detach().clone() for name, value in unsaved(net.model).items()}
    out |= net.transforms.state() | net.bases.state()
    frozen = [name for name, p in net.uncovered.items() if not p.requires_grad]
    out |= _flags("frozen", frozen)
    out |= _flags("collapsed", net.collapsed)
    out |= _flags("frozen_norms", net.frozen_norms)
    for name, parameter in net.parameters().items():
        for key, value in net.optimizer_state.of(parameter).items():
            out[f"optimizer/{name}/{key}"] = value.clone()
    out |= {f"method/{name}": value.clone() for name, value in net.method_state.items()}
    out |= {f"reported/{name}": _scalar(value) for name, value in net.reported.items()}
    out["counters"] = torch.tensor([net.support_version, int(net.has_trained)])
    return out


def _flags(prefix: str, names: Iterable[str]) -> State:
    return {f"{prefix}/{name}": torch.ones(1, dtype=torch.uint8) for name in sorted(names)}


def _flagged(prefix: str, state: Mapping[str, Tensor]) -> set[str]:
    return set(below(state, f"{prefix}/"))


def _scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else torch.int64)


def finished(net: Net) -> tuple[State, dict[str, Draw]]:
    """The tensors that a file of a trained net needs, and the draws of the weights that it leaves
    to the seed.

    Without the optimiser's state and the method's. Initial values that no draw gives to the bit are
    in it: a model's builder may have them from a file that changes, or from a generator that
    another version of its library does not have."""
    passing = ("optimizer/", "method/", "reported/")
    state = {name: value for name, value in copied(net).items() if not name.startswith(passing)}
    draws: dict[str, Draw] = {}
    for name, w in net.weights.items():
        if f"init/{name}" not in state:
            continue
        draw = net.draws.get(name)
        if draw and is_drawn(w, draw):
            draws[name] = draw
        else:
            state[f"theta/{name}"] = w.dense().clone()
    return state, draws


def is_drawn(w: Coordinates, draw: Draw) -> bool:
    """Whether the entries that are not trained are those of the draw."""
    others, again = ~w.trained().cpu(), draw.tensor(w.param.shape).to(w.param.dtype).view(-1)
    return torch.equal(w.dense().cpu()[others], again[others])


def redraw(w: Coordinates, draw: Draw, checksum: str) -> Tensor:
    """The weight of a draw. ValueError unless it has this checksum."""
    value = draw.tensor(w.param.shape)
    if bits(value).hex() != checksum:
        raise ValueError(
            "the seed draws other initial weights on this machine than where it was written"
        )
    return value.view(-1)


def load_state(net: Net, state: Mapping[str, Tensor]) -> None:
    """Return to what `copied` copied: coordinates, values and the optimiser's state."""
    # what is frozen at its initial value is made again, and is stored nowhere
    left = {
        name for name in net.weights if f"init/{name}" in state and f"theta/{name}" not in state
    }
    initial = net.initial() if left else {}
    for name, w in net.weights.items():
        psi = state[f"psi/{name}"].to(w.param)
        base = _base_of(name, state)
        support = state.get(f"{base}/{name}")
        if support is not None:
            support = support.to(w.param.device, torch.int64)
            whole = torch.zeros(w.size)
            if base != "zero":
                whole = initial[name] if name in left else state[f"theta/{name}"]
            psi = whole.to(w.param, copy=True).view(-1).index_copy_(0, support, psi)
        net.move(name, psi, support, base)
        net.optimizer_state.set(w.psi, below(state, f"optimizer/{name}/"))
    device = next(net.model.parameters()).device
    net.displacement = None
    for kind, z in below(state, "displacement/").items():
        net.displacement = Displacement(cast(Kind, kind), net.seed, z.to(device))
    net.collapsed = _flagged("collapsed", state) & net.weights.keys()
    net.frozen_norms = _flagged("frozen_norms", state)
    net.train(net.model.training)
    for name, parameter in net.uncovered.items():
        parameter.requires_grad_(f"frozen/{name}" not in state)
    net.method_state = {name: value.to(device) for name, value in below(state, "method/").items()}
    net.reported = {name: value.item() for name, value in below(state, "reported/").items()}
    _restore_others(net, state)
    version, trained = state["counters"].tolist()
    net.support_version, net.has_trained = version, bool(trained)


def _base_of(name: str, state: Mapping[str, Tensor]) -> Base:
    """The base of a weight: the prefix of its positions. All of it trains if it has none."""
    for base in get_args(Base):
        if f"{base}/{name}" in state:
            return base
    return "zero"


@torch.no_grad()
def rewind(net: Net, snapshot: Mapping[str, Tensor]) -> None:
    """Give weights, norms and the optimiser's state the values of a snapshot. Supports stay: an
    entry that is not trained now keeps its value."""
    # The supports may have been others then. So a copy returns to them, and its dense values and
    # its optimiser state are read at the present supports.
    then = copy.deepcopy(net)
    then.load(snapshot)
    for name, w in net.weights.items():
        old = then.weights[name]
        net.move(name, torch.where(w.trained(), old.dense(), w.dense()), w.support, w.base)
        state = below(snapshot, f"optimizer/{name}/")
        for key, value in state.items():
            if value.shape == old.psi.shape:
                state[key] = w.gather(old.scatter(value))
        net.optimizer_state.set(w.psi, state)
    _restore_others(net, snapshot)


def twin(net: Net, memo: dict) -> Net:
    """A copy without optimiser. Copied tensors no longer share memory, so psi is tied to its buffer
    anew."""
    out = copy.copy(net)
    detach_computed(net.model)
    # in one call: a parameter that they share is shared by the copies
    out.model, out.transforms, out.bases = copy.deepcopy(
        (net.model, net.transforms, net.bases), memo
    )
    out.collapsed, out.frozen_norms = set(net.collapsed), set(net.frozen_norms)
    out.method_state = {name: value.clone() for name, value in net.method_state.items()}
    out.reported = dict(net.reported)
    parameters = dict(out.model.named_parameters())
    out.weights = {name: Coordinates(parameters[name]) for name in net.weights}
    parameters |= out.bases.parameters()
    out.uncovered = {name: p for name, p in parameters.items() if name in net.uncovered}
    out.forward, out.dense_gradients = Forward(out.model), DenseGradients(out.weights)
    out.optimizer_state = OptimizerState()
    for name, w in net.weights.items():
        out.weights[name].set(w.dense(), w.support, w.base)
    return out


def detach_computed(model: nn.Module) -> None:
    """Detach what modules have computed and keep as attributes (the old weight_norm its weight): no
    graph is copied."""
    for module in model.modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                vars(module)[key] = value.detach()


def state_bytes(net: Net) -> int:
    """Bytes of training state of the covered weights: theta, psi, positions, gradient and optimiser
    state."""
    parameters = [w.psi for w in net.weights.values()]
    parameters += [*net.transforms.parameters().values(), *net.bases.parameters().values()]
    tensors: list[Tensor] = []
    for p in parameters:
        # the second one stands for the gradient
        tensors += [p, p, *net.optimizer_state.of(p).values()]
    for w in net.weights.values():
        tensors += w.stored()
    return sum(t.numel() * t.element_size() for t in tensors)


@torch.no_grad()
def _restore_others(net: Net, state: Mapping[str, Tensor]) -> None:
    """What is no covered weight: uncovered parameters, buffers, transforms and bases."""
    for name, value in _uncovered(net).items():
        value.copy_(state[f"uncovered/{name}"])
    kept = below(state, "buffer/")
    for name, value in unsaved(net.model).items():
        if name in kept and not torch.equal(value, kept[name].to(value)):
            value.resize_(kept[name].shape).copy_(kept[name])  # caches may have grown
    net.transforms.load(state, complete=False)
    net.bases.load(state)
    for name, parameter in (net.uncovered | net.transforms.parameters()).items():
        net.optimizer_state.set(parameter, below(state, f"optimizer/{name}/"))


def _uncovered(net: Net) -> State:
    """The model's state dict without the covered weights, whichever of their names it has."""
    covered = {w.param.data_ptr() for w in net.weights.values()}
    return {
        name: value
        for name, value in net.model.state_dict().items()
        if value.data_ptr() not in covered
    }


def unsaved(model: nn.Module) -> State:
    """The buffers that are not in the state dict (persistent=False), under all of their names."""
    state = model.state_dict()
    return {
        name: value
        for name, value in model.named_buffers(remove_duplicate=False)
        if name not in state
    }


def below(state: Mapping[str, Tensor], prefix: str) -> State:
    """Copies of the tensors whose names start with a prefix, by the rest of their names."""
    return {
        key.removeprefix(prefix): value.clone()
        for key, value in state.items()
        if key.startswith(prefix)
    }
