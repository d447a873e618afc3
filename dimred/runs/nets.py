"""Builds the net of a configuration, saves it with a run, and loads it again."""

from __future__ import annotations

import copy
import importlib.metadata
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import nn

from dimred.errors import UserError
from dimred.files import Json
from dimred.models import pretrained
from dimred.net import Net
from dimred.net.seeded import Draw, Initial, bits, seeded
from dimred.net.state import State, finished, redraw
from dimred.runs.build import build, own_weights, require_own, written_by
from dimred.runs.trial import give_logits
from dimred.storage.masks import lacking
from dimred.storage.tensors import read_tensors, write_tensors


def build_net(cfg: DictConfig, shape: tuple[int, ...], classes: int) -> Net:
    """The model with its initial weights, which depend on the seed alone, and its covered weights,
    in their basis."""
    node, run = cfg.model, pretrained_run(cfg.model)
    if run:
        start = load_net(run, targets={node._target_}).state_dict()
        node = DictConfig(own_weights(node))
    with seeded(cfg.seed) as drawing:
        model = build(node, "model", shape=shape, classes=classes)
    give_logits(model, shape, classes, node._target_)
    if run:
        pretrained.load(model, start, str(run))
    net = Net(
        model,
        seed=cfg.seed,
        include=cfg.include,
        exclude=cfg.exclude,
        draws=drawing.of(model),
        initial=Initial(model, drawing),
        shape=shape,
    )
    if cfg.get("basis"):
        build(cfg.basis, "basis").apply(net)
    return net


def pretrained_run(model: Mapping[str, Any]) -> Path | None:
    """The folder of the run that `model.pretrained` names; None if it names anything else."""
    given = model.get("pretrained")
    path = Path(given).expanduser() if isinstance(given, str) else None
    return path if path and path.is_dir() else None


# keys of the configuration that a net is built from
BUILT = ("model", "basis", "seed", "include", "exclude")


def save_net(path: Path, net: Net, built: Json, images: Json) -> None:
    """Write a trained net to the file that `load_run` reads.

    built: the configuration, as far as BUILT names it; images: their "shape" and the number of
    "classes"."""
    state, draws = finished(net)
    drawn = {
        name: draw._asdict() | {"checksum": bits(draw.tensor(net.weights[name].param.shape)).hex()}
        for name, draw in draws.items()
    }
    write_tensors(
        path,
        state,
        {**images, "config": built, "drawn": drawn, "dimred": importlib.metadata.version("dimred")},
    )


def load_net(folder: Path, trust: bool = False, targets: Collection[str] = ()) -> Net:
    """The trained net of a finished run, on the CPU. UserError if there is none, or if its model is
    neither one of dimred's nor of these targets: a file must not say which code is run, unless it
    is trusted to."""
    return load_run(folder, trust, targets)[0]


def load_run(folder: Path, trust: bool = False, targets: Collection[str] = ()) -> tuple[Net, Json]:
    """The same, with what made its model: "model", its configuration, and "shape" and "classes" of
    the images."""
    path = folder / "model.safetensors"
    if not path.exists():
        raise UserError(f"no model.safetensors in {folder}: {lacking(folder)}")
    state, about = read_tensors(path)
    if "config" not in about:
        raise UserError(f"{path} was not written by a run. Name the folder of a finished run")
    writer, advice = about.get("dimred"), "remove the folder and give the run's command again"
    with written_by(path, writer, advice):
        built = {key: about["config"][key] for key in BUILT}
    # outside of the blocks, which turn every error into one about the file
    require_own(path, built, trust, targets)
    with written_by(path, writer, advice):
        built["model"] = own_weights(built["model"])
        net = build_net(DictConfig(built), tuple(about["shape"]), about["classes"])
        net.load(state | left_to_the_seed(net, state, about.get("drawn", {})))
    return net, {"model": built["model"], "shape": about["shape"], "classes": about["classes"]}


def plain_model(net: Net) -> nn.Module:
    """A copy of the model with its weights written out."""
    model = copy.deepcopy(net.model)
    model.load_state_dict(net.state_dict())
    return model


def left_to_the_seed(net: Net, state: State, drawn: Json) -> State:
    """The weights that a file leaves to the seed. ValueError if they are not what they were where
    it was written."""
    left = [
        name for name in net.weights if f"init/{name}" in state and f"theta/{name}" not in state
    ]
    if missing := [name for name in left if name not in drawn]:
        raise ValueError(f"it does not say how {missing[0]} was drawn")
    weights = {}
    for name in left:
        draw = Draw(*(drawn[name][field] for field in Draw._fields))
        weights[f"theta/{name}"] = redraw(net.weights[name], draw, drawn[name]["checksum"])
    return weights
