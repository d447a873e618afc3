"""A net as flat named tensors, and back. The names say what they are:

psi/NAME         the d trained numbers of a weight
BASE/NAME        their d positions, under the kind of base of the others (zero, init, held); none if all are trained
theta/NAME       the whole weight (D), where its base is `held`; where it is `init`, only in the
                 files of finished runs, and only if no draw of the seed gives it
uncovered/NAME   parameters and buffers that are not covered;  frozen/NAME, those that do not train
buffer/NAME      buffers that are not in the model's state dict (persistent=False)
collapsed/NAME   layers without trained weights;  still/NAME, norms that do not follow their batches
map/NAME/KEY     of the weight's map;  basis/NAME/KEY, of its basis
memory/NAME/KEY  what the optimiser remembers of a parameter;  note/KEY, what the method does
counters         how often supports changed, whether a step was trained, parameters of folded
                 maps
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor, nn

from dimred.net.coordinates import Base, Coordinates
from dimred.net.seeded import Draw, bits

if TYPE_CHECKING:
    from dimred.net import Net

State = dict[str, Tensor]


def capture(net: Net) -> State:
    """All there is to a net, copied, on its device."""
    out: State = {}
    for name, w in net.weights.items():
        out[f"psi/{name}"] = w.psi.detach().clone()
        if w.support is not None:
            out[f"{w.base}/{name}"] = w.support.to(torch.int32 if w.size < 2**31 else torch.int64)
        if w.support is not None and w.base == "held":
            out[f"theta/{name}"] = w.dense().clone()
    out |= {f"uncovered/{name}": value.detach().clone() for name, value in _rest(net).items()}
    out |= {f"buffer/{name}": value.detach().clone() for name, value in unsaved(net.model).items()}
    out |= {
        f"transform/{name}/{key}": value.detach().clone()
        for name, each in net.transforms.items()
        for key, value in each.state_dict().items()
    }
    out |= {f"note/{name}": value.clone() for name, value in net.notes.items()}
    out |= {
        f"basis/{name}/{key}": value.detach().clone()
        for name, each in net.bases.items()
        for key, value in each.state_dict().items()
    }
    out |= {
        f"frozen/{n}": torch.ones(1, dtype=torch.uint8)
        for n, p in net.uncovered.items()
        if not p.requires_grad
    }
    out |= {f"collapsed/{name}": torch.ones(1, dtype=torch.uint8) for name in sorted(net.collapsed)}
    out |= {
        f"frozen_norms/{name}": torch.ones(1, dtype=torch.uint8)
        for name in sorted(net.frozen_norms)
    }
    for name, parameter in net.parameters().items():
        out |= {
            f"optimizer/{name}/{key}": value.clone()
            for key, value in net.memory_of(parameter).items()
        }
    out["counters"] = torch.tensor([net.support_version, int(net.has_trained), net.merged])
    return out


def finished(net: Net) -> tuple[State, dict[str, Draw]]:
    """What a file needs to hold of a trained net, and the draws of the weights that it leaves to
    the seed.

    Without the optimiser's memory, and of the notes with those alone that weights can be made of.
    Initial values that no draw gives to the bit are in it: a model's builder may have them from a
    file that changes, or from a generator that another version of its library has not."""
    state = {
        name: value
        for name, value in capture(net).items()
        if name.startswith("note/z/") or not name.startswith(("optimizer/", "note/"))
    }
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
    """Are the entries that are not trained those of the draw?"""
    others, again = ~w.trained().cpu(), draw.tensor(w.param.shape).to(w.param.dtype).view(-1)
    return torch.equal(w.dense().cpu()[others], again[others])


def redraw(w: Coordinates, draw: Draw, checksum: str) -> Tensor:
    """What a draw gives for a weight. ValueError if that is not what had this checksum."""
    value = draw.tensor(w.param.shape)
    if bits(value).hex() != checksum:
        raise ValueError(
            "the seed draws other initial weights on this machine than where it was written"
        )
    return value.view(-1)


def restore(net: Net, state: Mapping[str, Tensor]) -> None:
    """Be as `capture` found it: coordinates, values and the optimiser's memory."""
    left = {
        name for name in net.weights if f"init/{name}" in state and f"theta/{name}" not in state
    }
    initial = net.initial() if left else {}
    for name, w in net.weights.items():
        psi = state[f"psi/{name}"].to(w.param)
        base: Base = "zero"
        for kind in get_args(Base):
            base = kind if f"{kind}/{name}" in state else base
        support = state.get(f"{base}/{name}")
        if support is not None:
            support = support.to(w.param.device, torch.int64)
            whole = torch.zeros(w.size)
            if base != "zero":
                whole = initial[name] if name in left else state[f"theta/{name}"]
            psi = whole.to(w.param, copy=True).view(-1).index_copy_(0, support, psi)
        net.move(name, psi, support, base)
        net.remember(w.psi, below(state, f"optimizer/{name}/"))
    net.collapsed = {name for name in net.weights if f"collapsed/{name}" in state}
    device = next(net.model.parameters()).device
    net.notes = {name: note.to(device) for name, note in below(state, "note/").items()}
    net.frozen_norms = {
        key.removeprefix("frozen_norms/") for key in state if key.startswith("frozen_norms/")
    }
    net.train(net.model.training)
    for name, parameter in net.uncovered.items():
        parameter.requires_grad_(f"frozen/{name}" not in state)
    restore_rest(net, state)
    version, moved, *folded = state["counters"].tolist()
    # none in files of older versions
    net.support_version, net.has_trained, net.merged = version, bool(moved), sum(folded)


@torch.no_grad()
def restore_rest(net: Net, state: Mapping[str, Tensor]) -> None:
    for name, value in _rest(net).items():
        value.copy_(state[f"uncovered/{name}"])
    kept = below(state, "buffer/")
    for name, value in unsaved(net.model).items():
        if name in kept and not torch.equal(value, kept[name].to(value)):
            value.resize_(kept[name].shape).copy_(kept[name])  # caches may have grown
    for name, each in net.transforms.items():
        each.load_state_dict(below(state, f"transform/{name}/") or each.state_dict())
    for name, each in net.bases.items():
        each.load_state_dict(below(state, f"basis/{name}/"))
    for name, parameter in (net.uncovered | net.transform_parameters()).items():
        net.remember(parameter, below(state, f"optimizer/{name}/"))


def _rest(net: Net) -> State:
    """The model's state dict without the covered weights, under whichever of their names."""
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
    """Copies of what lies under a prefix, by the names behind it."""
    return {
        key.removeprefix(prefix): value.clone()
        for key, value in state.items()
        if key.startswith(prefix)
    }
