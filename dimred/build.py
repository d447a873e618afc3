"""From a checked configuration to objects."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from dimred import models
from dimred.draws import Draw, Initial, bits, seeded
from dimred.errors import NO_MEMORY, UserError, require
from dimred.masks import lacking
from dimred.models import pretrained
from dimred.net import Net
from dimred.record import Json, read_tensors, write_tensors
from dimred.schema import checked_group, fits, hints_of, resolve
from dimred.state import State, finished, redraw
from dimred.trial import give_logits


def build(node: DictConfig, group: str, **given: Any) -> Any:
    """The object that a group's `_target_` describes. UserError as in `checked_group`."""
    described = checked_group(node, group, given)
    try:
        return instantiate(described, **given, _convert_="all")
    except InstantiationException as error:
        raise explained(error.__cause__ or error, described, group) from error


def explained(error: BaseException, described: Mapping[str, Any], group: str) -> BaseException:
    """An error of what could not be built, with the values that it was given; UserErrors, full
    disks and the like say enough."""
    if not isinstance(
        error, (ArithmeticError, ValueError, TypeError, RuntimeError, LookupError)
    ) or re.search(NO_MEMORY, str(error)):
        return error
    values = ", ".join(
        f"{group}.{key}={value}" for key, value in described.items() if key != "_target_"
    )
    reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    advice = f"Choose other values than {values}, or add" if values else "Add"
    return UserError(
        f"{described['_target_']} cannot be built ({reason}). {advice} --debug to see where"
    )


def build_net(cfg: DictConfig, shape: tuple[int, int, int], classes: int) -> Net:
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


# -- a trained net in a file --------------------
# of the configuration, what a net is built from
BUILT = ("model", "basis", "seed", "include", "exclude")


def save_net(path: Path, net: Net, built: Json, images: Json) -> None:
    """Write what is left to know of a trained net: what `load_run` reads.

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
    require_own(path, built, trust, targets)
    with written_by(path, writer, advice):
        built["model"] = own_weights(built["model"])
        net = build_net(DictConfig(built), tuple(about["shape"]), about["classes"])
        net.load(state | left_to_the_seed(net, state, about.get("drawn", {})))
    return net, {"model": built["model"], "shape": about["shape"], "classes": about["classes"]}


def left_to_the_seed(net: Net, state: State, drawn: Json) -> State:
    """The weights that a file leaves to the seed. ValueError if they are not what they were where
    it was written."""
    left = [
        name for name in net.weights if f"init/{name}" in state and f"theta/{name}" not in state
    ]
    if missing := [name for name in left if name not in drawn]:
        raise ValueError(f"it does not say how {missing[0]} was drawn")
    draws = {name: Draw(*(drawn[name][field] for field in Draw._fields)) for name in left}
    return {
        f"theta/{name}": redraw(net.weights[name], draw, drawn[name]["checksum"])
        for name, draw in draws.items()
    }


def build_model(model: Json, shape: tuple[int, int, int], classes: int, seed: int) -> nn.Module:
    """The model that a file describes (`require_own` has been asked), to be filled with the file's
    weights."""
    with seeded(seed):
        built = build(DictConfig(own_weights(model)), "model", shape=shape, classes=classes)
    give_logits(built, shape, classes, model["_target_"])
    return built


def own_weights(model: Mapping[str, Any]) -> Json:
    """The configuration of a model whose weights are there, so that its builder reads no others:
    `pretrained` is null, or false where it is true or false. A builder that must be given a name is
    given it."""
    if "pretrained" not in model:
        return dict(model)
    hint = hints_of(resolve(model["_target_"], "model")[0]).get("pretrained", Any)
    nothing = False if isinstance(model["pretrained"], bool) or hint is bool else None
    return {**model, "pretrained": nothing if fits(nothing, hint) else model["pretrained"]}


@contextmanager
def written_by(path: Path, version: str | None, advice: str) -> Iterator[None]:
    """UserError, with what to do, if what a whole file describes cannot be built here."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: the builder of its model failed ({error}). Put the files that "
            f"it reads back, or {advice}"
        ) from error
    except Exception as error:  # whoever writes a checksum can write anything before it
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error).split("\n")[0]
        raise UserError(
            f"{path} is whole, but does not describe a network of this dimred ({why}). It was written by "
            f"{f'dimred {version}' if version else 'another version'}: read it with that, or {advice}"
        ) from error


def require_own(path: Path, described: Any, trust: bool, targets: Collection[str] = ()) -> None:
    """UserError if a file's configuration asks for code that is neither dimred's nor one of these
    targets, unless the file is trusted. Whatever says `${...}` can ask for any: OmegaConf puts
    other parts or its resolvers' results there."""
    safe = {f"dimred.models.{name}" for name in models.__all__} | set(targets)
    safe |= {"dimred.methods.basis.Interspace", "dimred.methods.soft.PowerProp"}
    others = [
        str(value)
        for key, value in leaves(described)
        if "${" in f"{key}{value}" or (key == "_target_" and value not in safe)
    ]
    if others and not trust:
        raise UserError(
            f"{path} asks for code that is not dimred's: {', '.join(others)}. If you trust it, add --trust"
        )


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """What stands in nested JSON, with the key that it stands under; a list of a `_target_` is one
    of those, too."""
    if isinstance(node, (dict, list)):
        for name, value in (
            node.items() if isinstance(node, dict) else ((key, each) for each in node)
        ):
            yield from leaves(value, str(name))
    else:
        yield key, node


def find_device(name: str) -> torch.device:
    count = torch.cuda.device_count()
    allowed = ["auto", "cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    require(name in allowed, "device", name, f"one of {', '.join(allowed)} (what this machine has)")
    return torch.device("cuda" if count else "cpu") if name == "auto" else torch.device(name)
