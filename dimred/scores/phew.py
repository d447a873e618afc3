"""PHEW: random walks through a network, forwards and backwards, biased towards large weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dimred.errors import UserError
from dimred.net import Net

PARTS = 20  # progress is reported after each twentieth of the weights


class Layer(NamedTuple):
    """A covered weight as connections from input to output channels. Features of Linear layers
    count as channels."""

    size: Tensor  # |w| (in, out, kernel), zero where a grouped convolution has no weight
    place: Tensor  # the index of each weight in the flat weights of the whole net
    after: list[str]  # the layers that use its output; empty for an output layer
    before: list[str]  # the layers that its input comes from; empty for an input layer


def phew(
    net: Net,
    shape: Sequence[int],
    count: int,
    random: torch.Generator,
    rounds: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> dict[str, Tensor]:
    """Weights score by how early a walk visits them; unvisited weights rank below, by magnitude.

    A walk goes from channel i to j with probability |W_ij|_1 / sum_j |W_ij|_1, and within the
    kernel W_ij takes weight w with probability |w| / |W_ij|_1. So of all weights that lead on from
    i, it takes one with probability proportional to its magnitude. Where feature maps are
    flattened, it first draws a pixel of the channel uniformly, as in the official code. Every other
    walk goes backwards. Walks start from all channels in turn, until they have visited `count`
    weights. The last few weights are chosen singly: the largest that connect channels visited by
    walks. So exactly `count` weights rank first, and all of them lie on paths.

    Patil, Dovrolis, ICML 2021 (arXiv:2010.11354). The walks stop early when they find few new
    weights (high density). `rounds` yields numbers of visited weights and may report progress."""
    layers = read_layers(net, shape)
    tables = {name: path_tables(layer) for name, layer in layers.items()}
    sizes = (
        torch.cat([theta.reshape(-1) for theta in net.dense_weights().values()])
        .cpu()
        .double()
        .abs()
    )
    order = torch.full_like(sizes, torch.inf)  # the order of first visits
    visited, first, exhausted = 0, 0, False
    for goal in rounds([count * part // PARTS for part in range(1, PARTS + 1)]):
        while visited < goal and not exhausted:
            # a walk visits about one weight of each layer: this batch finds at most a quarter of
            # the missing weights, so that few walks at the end are in vain
            walks = max(2, min(8192, (count - visited) // (4 * len(layers))))
            found, walk = sample_walks(layers, tables, range(first, first + walks), random)
            new, owner = _fresh(found, walk, order)
            # only whole walks: a part of one would end inside the network
            fits = torch.bincount(owner - first, minlength=walks).cumsum(0) <= count - visited
            new = new[fits[owner - first]]
            order[new] = torch.arange(visited, visited + len(new), dtype=order.dtype)
            visited, first = visited + len(new), first + walks
            # most walks now repeat each other; at high density the rest would take very many
            exhausted = len(new) < 0.05 * len(found)
    while visited < count:
        bridges = _bridges(layers, order)
        new = bridges[sizes[bridges].argsort(descending=True, stable=True)][: count - visited]
        if len(new) == 0:
            break
        order[new] = torch.arange(visited, visited + len(new), dtype=order.dtype)
        visited += len(new)
    # visited weights score above 1 and unvisited ones at most 1
    score = torch.where(order.isfinite(), 1 + visited - order, sizes / sizes.max())
    parts = score.split([w.size for w in net.weights.values()])
    return {
        name: part.view(w.param.shape).to(w.param.device)
        for (name, w), part in zip(net.weights.items(), parts, strict=True)
    }


def _fresh(found: Tensor, walk: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """The places visited for the first time, and the first walk to visit each, sorted by walk."""
    sort = walk.argsort(stable=True)
    sort = sort[found[sort].argsort(stable=True)]  # by place and, among the same, by walk
    found, walk = found[sort], walk[sort]
    first = torch.ones_like(found, dtype=torch.bool)
    first[1:] = found[1:] != found[:-1]
    first &= order[found].isinf()
    found, walk = found[first], walk[first]
    sort = walk.argsort(stable=True)
    return found[sort], walk[sort]


def sample_walks(
    layers: Mapping[str, Layer],
    tables: Mapping[str, tuple[Tensor, Tensor]],
    ids: range,
    random: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The places visited by these walks, and the walk of each visit. Even walks go forwards, odd
    ones backwards."""
    found, walks = [], []
    for backwards in (False, True):
        mine = torch.tensor([i for i in ids if i % 2 == backwards])
        if backwards:
            ends = [name for name, layer in layers.items() if not layer.after]
        else:
            ends = [name for name, layer in layers.items() if not layer.before]
        channels = layers[ends[0]].size.shape[1 if backwards else 0]
        # all walks advance together, layer by layer; "" is the outside of the network
        arrivals = {"": [(mine, (mine // 2) % channels)]}
        for name in ["", *(reversed(list(layers)) if backwards else layers)]:
            here = layers.get(name)
            if here is None:
                targets = ends
            else:
                targets = here.before if backwards else here.after
            if name not in arrivals or not targets:
                continue
            walk, channel = (torch.cat(each) for each in zip(*arrivals.pop(name), strict=True))
            ranges = torch.stack(
                [
                    _ranges(layers[t], here, channel, backwards, tables[t][backwards], random)
                    for t in targets
                ]
            )
            widths = (ranges[:, 1] - ranges[:, 0]).cumsum(0)
            draw = torch.rand(len(walk), generator=random, dtype=torch.float64) * widths[-1]
            # the draw chooses the target layer and, by its remainder, the weight in that layer
            which = (widths <= draw).sum(0)
            for i, target in enumerate(targets):
                taken = ((which == i) & (widths[-1] > 0)).nonzero().view(-1)
                low, high = ranges[i, :, taken]
                into = low + draw[taken] - (widths[i - 1, taken] if i else 0.0)
                # rounded sums may exceed the range
                into = torch.minimum(into, torch.nextafter(high, low))
                entry = torch.searchsorted(tables[target][backwards][1:], into, right=True)
                place, arrived = _entry(layers[target], entry, backwards)
                found.append(place)
                walks.append(walk[taken])
                arrivals.setdefault(target, []).append((walk[taken], arrived))
    return torch.cat(found), torch.cat(walks)


def _ranges(
    target: Layer,
    here: Layer | None,
    channel: Tensor,
    backwards: bool,
    table: Tensor,
    random: torch.Generator,
) -> Tensor:
    """For each channel, the range in the target's cumulative magnitudes (2, n) of the weights that
    lead on from it."""
    rows = target.size.shape[1 if backwards else 0]
    width = target.size.numel() // rows
    row = channel
    if here and backwards:
        row = channel // _flattened(target, here)
    elif here and (pixels := _flattened(here, target)) > 1:
        row = channel * pixels + torch.randint(pixels, channel.shape, generator=random)
    first, last = row.clamp(max=rows), (row + 1).clamp(max=rows)
    return torch.stack([table[first * width], table[last * width]])


def _entry(layer: Layer, entry: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
    """The places of these entries of a table, and the channels that they lead to."""
    inputs, outputs, kernel = layer.size.shape
    row, column, cell = (
        entry // kernel // (inputs if backwards else outputs),
        entry // kernel % (inputs if backwards else outputs),
        entry % kernel,
    )
    return layer.place[(column, row, cell) if backwards else (row, column, cell)], column


def path_tables(layer: Layer) -> tuple[Tensor, Tensor]:
    """Cumulative magnitudes, ordered by input channel and by output channel."""
    # a uniform draw below the last sum falls between the sums i and i + 1 with probability
    # proportional to the magnitude of entry i
    both = layer.size, layer.size.transpose(0, 1)
    read, made = (torch.cat([size.new_zeros(1), size.reshape(-1).cumsum(0)]) for size in both)
    return read, made


def _flattened(maker: Layer, reader: Layer) -> int:
    """The number of input features of the next layer for each channel: the number of its pixels
    where feature maps are flattened, otherwise 1."""
    features, channels = reader.size.shape[0], maker.size.shape[1]
    return features // channels if reader.size.shape[2] == 1 and features % channels == 0 else 1


def _bridges(layers: Mapping[str, Layer], order: Tensor) -> Tensor:
    """The unvisited places between visited channels: each completes a path on its own."""
    used = {
        name: order[layer.place.clamp(min=0)].isfinite() & (layer.place >= 0)
        for name, layer in layers.items()
    }
    out = []
    for name, layer in layers.items():
        reached = torch.zeros(layer.size.shape[0], dtype=torch.bool) | (not layer.before)
        for maker in layer.before:
            was = torch.arange(len(reached)) // _flattened(layers[maker], layer)
            live = used[maker].any(2).any(0)
            reached |= live[was.clamp(max=len(live) - 1)] & (was < len(live))
        continued = torch.zeros(layer.size.shape[1], dtype=torch.bool) | (not layer.after)
        for reader in layer.after:
            features = used[reader].any(2).any(1)
            continued |= (
                features[: len(continued) * _flattened(layer, layers[reader])]
                .view(len(continued), -1)
                .any(1)
            )
        free = reached[:, None, None] & continued[None, :, None] & ~used[name] & (layer.place >= 0)
        out.append(layer.place[free])
    return torch.cat(out)


# -- the layers and their connections --------------------
def read_layers(net: Net, shape: Sequence[int]) -> dict[str, Layer]:
    """The covered layers in the order of computation; walks do not visit biases and norms.
    UserError if a layer uses only a part of another's channels."""
    twin = copy.deepcopy(net).to("cpu")
    twin.train(False)
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    modules = {
        f"{prefix}.weight".lstrip("."): m
        for prefix, m in twin.model.named_modules()
        if isinstance(m, kinds)
    }
    require_walkable(net, modules.keys())
    inputs_of: dict[str, Tensor] = {}
    outputs_of: dict[str, Tensor] = {}

    def watch(name: str, module: nn.Module) -> None:
        def cut(_: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            # cut the graph at every layer: a gradient then reaches the directly preceding layers
            # alone. Zeros suffice as images, since only the existence of gradients matters
            inputs_of[name], outputs_of[name] = inputs[0].sum(), out.detach().requires_grad_()
            return outputs_of[name].clone()

        module.register_forward_hook(cut)

    for name in filter(modules.__contains__, net.weights):
        watch(name, modules[name])
    dtype = next(iter(twin.dense_weights().values())).dtype
    twin(torch.zeros(1, *shape, dtype=dtype).requires_grad_())
    before: dict[str, list[str]] = {}
    for name, total in inputs_of.items():
        grads = torch.autograd.grad(
            total, list(outputs_of.values()), allow_unused=True, retain_graph=True
        )
        before[name] = [
            maker for maker, grad in zip(outputs_of, grads, strict=True) if grad is not None
        ]
    layers, offset = {}, {}
    at = 0
    for name, w in net.weights.items():
        offset[name] = at
        at += w.size
    for name in inputs_of:
        size, place = _by_channel(twin, name, modules[name], offset[name])
        after = [reader for reader, makers in before.items() if name in makers]
        layers[name] = Layer(size, place, after, before[name])
    for layer in layers.values():
        for maker in layer.before:
            if layer.size.shape[0] < layers[maker].size.shape[1]:
                raise UserError(
                    "method phew walks from channel to channel, and in "
                    f"{type(net.model).__name__} a layer uses only a part of the channels of "
                    "another. Choose a model that does not split channels, such as model=resnet20"
                )
    return layers


def require_walkable(net: Net, layers: Set[str]) -> None:
    """UserError unless all covered matrices are weights of Conv or Linear layers, and there is
    one."""
    others = [name for name, w in net.weights.items() if w.param.dim() > 1 and name not in layers]
    if others or not net.weights.keys() & layers:
        wrong = f"{others[0]} belongs to neither" if others else "none of them is covered"
        raise UserError(
            f"method phew walks through Conv and Linear layers, and {wrong}. Choose include and "
            "exclude so that only weights of such layers, and biases and norms, are covered, or "
            "another method"
        )


def _by_channel(twin: Net, name: str, module: Any, offset: int) -> tuple[Tensor, Tensor]:
    """Magnitudes (in, out, kernel) and places of a weight; a grouped convolution has zeros and -1
    between groups."""
    theta = twin.dense_weights()[name]
    out, per_group, groups = theta.shape[0], theta.shape[1], getattr(module, "groups", 1)
    kernel = theta[0, 0].numel()
    size = torch.zeros(per_group * groups, out, kernel, dtype=torch.float64)
    place = torch.full(size.shape, -1)
    places = torch.arange(offset, offset + theta.numel()).view(out, per_group, kernel)
    for group in range(groups):
        outs = slice(group * out // groups, (group + 1) * out // groups)
        ins = slice(group * per_group, (group + 1) * per_group)
        size[ins, outs] = theta.view(out, per_group, kernel)[outs].transpose(0, 1).abs().double()
        place[ins, outs] = places[outs].transpose(0, 1)
    return size, place
