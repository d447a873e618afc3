"""docs/pictures/methods/NAME.svg: which weights a method trains, step by step, in a short run.

    scripts/histories [NAME ...]

trains every method, or some, on scikit-learn's digits. A page of the site shows each picture.
NAME may be `tour`, the notebook of the tour."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

import tour
from history_picture import Band, draw
from main import ROOT

import dimred
from dimred.net import Net
from dimred.runs.api import planned
from dimred.runs.build import build
from dimred.runs.config.files import names
from dimred.runs.config.schema import checked
from dimred.runs.nets import build_net
from dimred.training.loop import Train
from dimred.training.observers import Observer

PICTURES = ROOT / "docs/pictures/methods"
SPARSITY, EPOCHS, SEED = 0.8, 10, 0
WEIGHTS = 40  # of each layer
#: methods that need norms
NEED_NORMS = ("early_bird", "network_slimming", "norm_only")
#: methods that move every weight by a few numbers: supports do not tell
MOVE_ALL = ("intrinsic_dimension", "subspace")


class History(Observer):
    """The states of some weights of three layers, after every step. A state is 1 if the model's
    value is nonzero, and 2 more if the weight is trained."""

    def __init__(self, net: Net, moves_all: bool) -> None:
        self.moves_all = moves_all
        every = [name for name, weight in net.weights.items() if weight.size >= WEIGHTS]
        self.layers = dict.fromkeys((every[0], every[len(every) // 2], every[-1]))
        generator = torch.Generator().manual_seed(SEED)
        self.positions = {
            name: torch.randperm(net.weights[name].size, generator=generator)[:WEIGHTS]
            for name in self.layers
        }
        self.states: dict[str, list[Tensor]] = {name: [] for name in self.layers}

    def before_step(self, train: Train, step: int) -> None:
        if not self.states[next(iter(self.layers))]:
            self.look(train.net)

    def after_update(self, train: Train, step: int) -> None:
        self.look(train.net)

    def look(self, net: Net) -> None:
        values = net.effective_weights()
        for name, positions in self.positions.items():
            trained = self.trained(net, name)[positions]
            nonzero = values[name].flatten()[positions] != 0
            self.states[name].append(2 * trained.long() + nonzero.long())

    def finish(self, net: Net) -> None:
        """Look once more: what a method prunes after the last step. Nothing is trained then that
        was not before."""
        before = {name: states[-1] for name, states in self.states.items() if states}
        self.look(net)
        for name, last in before.items():
            states = self.states[name]
            states[-1] = torch.where(last >= 2, states[-1], states[-1] % 2)

    def trained(self, net: Net, name: str) -> Tensor:
        """Whether each entry of a weight is trained."""
        weight = net.weights[name]
        if weight.support is None or self.moves_all:
            return torch.ones(weight.size, dtype=torch.bool)
        found = torch.zeros(weight.size, dtype=torch.bool)
        found[weight.support] = True
        return found


def settings(name: str) -> dict[str, object]:
    model = "resnet20" if name in NEED_NORMS else "lenet300"
    given: dict[str, object] = {"method": name, "sparsity": SPARSITY, "model": model, "seed": SEED}
    if name == "from_mask":
        given["method.mask"] = str(
            dimred.train("snip", sparsity=SPARSITY, recipe={"epochs": 1}).folder
        )
    return given | {"recipe": {"epochs": EPOCHS}}


def history(name: str) -> History:
    """Train the method, and look on."""
    cfg = checked(planned(settings(name), None).cfg)
    data = build(cfg.dataset, "dataset")
    net = build_net(cfg, data.shape, data.classes)
    train = Train(net, data, build(cfg.recipe, "recipe"), seed=SEED)
    seen = History(net, name in MOVE_ALL)
    train.observers.append(seen)
    build(cfg.method, "method").run(net, train)
    seen.finish(net)
    return seen


def bands(seen: History) -> list[Band]:
    return [
        Band(name.removesuffix(".weight"), torch.stack(states, dim=1).tolist())
        for name, states in seen.states.items()
    ]


def main(chosen: list[str]) -> int:
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in chosen or [*names("method"), "tour"]:
        if name == "tour":
            tour.run()
            continue
        picture = draw(bands(history(name)), f"{name}: which weights are trained, step by step")
        (PICTURES / f"{name}.svg").write_text(picture)
        print(f"{name}: {len(picture) / 1000:.1f} kB", flush=True)
    return 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as elsewhere:
        os.chdir(elsewhere)  # runs that a method needs are not kept
        sys.exit(main(sys.argv[1:]))
