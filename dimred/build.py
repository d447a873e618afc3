"""From a composed configuration to objects. What is wrong with it (a typo, a type, a range) is said here, before any
work is done."""
from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import inspect
import json
import math
import pkgutil
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from dimred import models
from dimred.configs import GROUPS, description
from dimred.draws import Draw, Initial, bits, seeded
from dimred.errors import UserError, nearest, require
from dimred.masks import content_of, lacking, read_masks
from dimred.models import pretrained
from dimred.net import Net
from dimred.record import Json, read_tensors, write_tensors
from dimred.state import State, finished, redraw

#: the keys of the configuration that are no groups, with their types
KEYS: dict[str, Any] = {"sparsity": float, "seed": int, "include": list[str], "exclude": list[str], "device": str,
                        "data_dir": str, "outputs": str, "checkpoint_seconds": float}
Choices = Mapping[str, str]     # of the groups: {"method": "rigl", ...}


# -- the description --------------------
def check(cfg: DictConfig) -> None:
    """UserError for what no run can have. Hydra has refused unknown keys already, but for +key, and lets ~key pass."""
    known = {*GROUPS, *KEYS}
    for key in sorted(set(cfg) - known):
        raise UserError(f"unknown key {key}. {nearest(key, known)}")
    for key in sorted(known - set(cfg)):
        raise UserError(f"{key} is missing. Leave out what takes it away (~{key})")
    try:
        for key in sorted(OmegaConf.missing_keys(cfg)):
            raise UserError(f"{key} has no value of its own. Give it one: {key}=...")
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{str(error).splitlines()[0]}, in {error.full_key}") from error
    assert isinstance(plain, dict)
    for key, hint in KEYS.items():
        require(is_a(plain[key], hint), key, plain[key], named(hint))
    require(0 <= cfg.sparsity < 1, "sparsity", cfg.sparsity, "a number in [0, 1): the fraction that is not trained")
    require(0 <= cfg.seed < 2**63, "seed", cfg.seed, "a whole number, 0 or more (and less than 2^63)")
    require(cfg.checkpoint_seconds >= 0, "checkpoint_seconds", cfg.checkpoint_seconds, "0 (every step) or more")
    for group, given in GROUPS.items():
        if group != "basis" or cfg.basis:       # basis=none is empty
            check_group(cfg[group], group, given)


def check_group(node: DictConfig, group: str, given: Collection[str] = ()) -> None:
    """UserError for names that the group's `_target_` does not take, values it misses and values of another type than
    its annotations say; `given` are those that the runner adds."""
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise UserError(f"the configuration of {group} names no _target_. Choose one: {group}=NAME")
    target, parameters = resolve(node._target_, group)
    values = {str(key): node[key] for key in node if key != "_target_"}
    for key in values:
        if key not in parameters:
            raise UserError(f"unknown key {group}.{key}. {nearest(key, set(parameters) - set(given))}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in {*values, *given}:
            raise UserError(f"{group}.{key} is missing. Give it a value where {group} is configured, or by "
                            f"+{group}.{key}=...")
    hints = hints_of(target)
    for key, value in values.items():
        plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        require(key not in hints or is_a(plain, hints.get(key)), f"{group}.{key}", plain, named(hints.get(key)))


def resolve(name: str, group: str) -> tuple[Any, Mapping[str, inspect.Parameter]]:
    """What package.module.NAME is, and the parameters it takes."""
    try:
        target = pkgutil.resolve_name(":".join(name.rsplit(".", 1)))     # what, and the module it is in
        return target, inspect.signature(target).parameters
    except Exception as error:
        raise UserError(f"{group}._target_={name} cannot be imported ({error}). If it is your own, put its folder on "
                        "PYTHONPATH") from error


def hints_of(target: Any) -> dict[str, Any]:
    """The annotations of what it is built from."""
    plain_class = inspect.isclass(target) and not dataclasses.is_dataclass(target)
    return typing.get_type_hints(target.__init__ if plain_class else target)


def describe(cfg: DictConfig) -> Json:
    """What determines the result. Of another run's mask that is its content, wherever it lies."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    if isinstance(mask := plain["method"].get("mask"), str):
        plain["method"]["mask"] = content_of(read_masks(Path(mask).expanduser()))
    return description({str(key): value for key, value in plain.items()})


def folder_of(cfg: DictConfig, choices: Choices, description: Json) -> Path:
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:10]
    sparsity = f"-s{cfg.sparsity:g}" if "sparsity" in cfg.method else ""
    name = f"{choices['method']}{sparsity}-seed{cfg.seed}-{digest}"
    return Path(cfg.outputs).expanduser() / "runs" / choices["dataset"] / choices["model"] / name


# -- building --------------------
def build(node: DictConfig, group: str, **given: Any) -> Any:
    """The object that a group's `_target_` describes. UserError as in `check_group`."""
    check_group(node, group, given)
    try:
        return instantiate(node, **given, _convert_="all")
    except InstantiationException as error:
        raise error.__cause__ or error from None


def is_a(value: object, hint: Any) -> bool:
    """Does a value from a YAML file fit an annotation? Anything that is built from a `_target_` does."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(is_a(value, argument) for argument in arguments)
    if hint is Any or (isinstance(value, dict) and "_target_" in value):
        return True
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    if isinstance(value, list):
        inner = [a for a in arguments if a is not Ellipsis]
        return origin is not None and all(is_a(v, inner[0]) for v in value if inner)
    if hint is float:
        return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return isinstance(value, hint) if isinstance(hint, type) and origin is None else origin is None


def named(hint: Any) -> str:
    """An annotation in words."""
    words = {int: "a whole number", float: "a finite number", str: "a name", bool: "true or false", type(None): "null"}
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, arguments))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(named(a) for a in arguments)
    return f"a list in brackets, each {named(arguments[0])}" if arguments else words.get(hint, str(hint))


def build_net(cfg: DictConfig, shape: tuple[int, int, int], classes: int) -> Net:
    """The model with its initial weights, which depend on the seed alone, and its covered weights, in their basis."""
    node, run = cfg.model, pretrained_run(cfg.model)
    if run:
        start = load_net(run, targets={node._target_}).state_dict()
        node = DictConfig(own_weights(node))
    with seeded(cfg.seed) as drawing:
        model = build(node, "model", shape=shape, classes=classes)
    if run:
        pretrained.load(model, start, str(run))
    net = Net(model, seed=cfg.seed, include=cfg.include, exclude=cfg.exclude, draws=drawing.of(model),
              initial=Initial(model, drawing), shape=shape)
    if cfg.get("basis"):
        build(cfg.basis, "basis").apply(net)
    return net


def pretrained_run(model: Mapping[str, Any]) -> Path | None:
    """The folder of the run that `model.pretrained` names; None if it names anything else."""
    given = model.get("pretrained")
    path = Path(given).expanduser() if isinstance(given, str) else None
    return path if path and path.is_dir() else None


# -- a trained net in a file --------------------
BUILT = ("model", "basis", "seed", "include", "exclude")     # of the configuration, what a net is built from


def save_net(path: Path, net: Net, built: Json, images: Json) -> None:
    """Write what is left to know of a trained net: what `load_run` reads.

    built: the configuration, as far as BUILT names it; images: their "shape" and the number of "classes"."""
    state, draws = finished(net)
    drawn = {name: draw._asdict() | {"checksum": bits(draw.tensor(net.weights[name].param.shape)).hex()}
             for name, draw in draws.items()}
    write_tensors(path, state, {**images, "config": built, "drawn": drawn,
                                "dimred": importlib.metadata.version("dimred")})


def load_net(folder: Path, trust: bool = False, targets: Collection[str] = ()) -> Net:
    """The trained net of a finished run, on the CPU. UserError if there is none, or if its model is neither one of
    dimred's nor of these targets: a file must not say which code is run, unless it is trusted to."""
    return load_run(folder, trust, targets)[0]


def load_run(folder: Path, trust: bool = False, targets: Collection[str] = ()) -> tuple[Net, Json]:
    """The same, with what made its model: "model", its configuration, and "shape" and "classes" of the images."""
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
    """The weights that a file leaves to the seed. ValueError if they are not what they were where it was written."""
    left = [name for name in net.weights if f"init/{name}" in state and f"theta/{name}" not in state]
    if missing := [name for name in left if name not in drawn]:
        raise ValueError(f"it does not say how {missing[0]} was drawn")
    draws = {name: Draw(*(drawn[name][field] for field in Draw._fields)) for name in left}
    return {f"theta/{name}": redraw(net.weights[name], draw, drawn[name]["checksum"]) for name, draw in draws.items()}


def build_model(model: Json, shape: tuple[int, int, int], classes: int, seed: int) -> nn.Module:
    """The model that a file describes (`require_own` has been asked), to be filled with the file's weights."""
    with seeded(seed):
        return build(DictConfig(own_weights(model)), "model", shape=shape, classes=classes)


def own_weights(model: Mapping[str, Any]) -> Json:
    """The configuration of a model whose weights are there, so that its builder reads no others: `pretrained` is null,
    or false where it is true or false. A builder that must be given a name is given it."""
    if "pretrained" not in model:
        return dict(model)
    hint = hints_of(resolve(model["_target_"], "model")[0]).get("pretrained", Any)
    nothing = False if isinstance(model["pretrained"], bool) or hint is bool else None
    return {**model, "pretrained": nothing if is_a(nothing, hint) else model["pretrained"]}


@contextmanager
def written_by(path: Path, version: str | None, advice: str) -> Iterator[None]:
    """UserError, with what to do, if what a whole file describes cannot be built here."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: the builder of its model failed ({error}). Put the files that it reads back, or "
                        f"{advice}") from error
    except Exception as error:      # whoever writes a checksum can write anything before it
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error).split("\n")[0]
        raise UserError(f"{path} is whole, but does not describe a network of this dimred ({why}). It was written by "
                        f"{f'dimred {version}' if version else 'another version'}: read it with that, or {advice}"
                        ) from error


def require_own(path: Path, described: Any, trust: bool, targets: Collection[str] = ()) -> None:
    """UserError if a file's configuration asks for code that is neither dimred's nor one of these targets, unless the
    file is trusted. Whatever says `${...}` can ask for any: OmegaConf puts other parts or its resolvers' results
    there."""
    safe = {f"dimred.models.{name}" for name in models.__all__} | set(targets)
    safe |= {"dimred.methods.basis.Interspace", "dimred.methods.soft.PowerProp"}
    others = [str(value) for key, value in leaves(described)
              if "${" in f"{key}{value}" or (key == "_target_" and value not in safe)]
    if others and not trust:
        raise UserError(f"{path} asks for code that is not dimred's: {', '.join(others)}. If you trust it, add --trust")


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """What stands in nested JSON, with the key that it stands under; a list of a `_target_` is one of those, too."""
    if isinstance(node, (dict, list)):
        for name, value in node.items() if isinstance(node, dict) else ((key, each) for each in node):
            yield from leaves(value, str(name))
    else:
        yield key, node


def find_device(name: str) -> torch.device:
    count = torch.cuda.device_count()
    allowed = ["auto", "cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    require(name in allowed, "device", name, f"one of {', '.join(allowed)} (what this machine has)")
    return torch.device("cuda" if count else "cpu") if name == "auto" else torch.device(name)
