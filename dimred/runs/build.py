"""Builds methods, recipes, data sets and models from a checked configuration."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from dimred import models
from dimred.errors import UserError, first_line
from dimred.fields.targets import hints_of, resolve
from dimred.fields.values import fits
from dimred.files import Json
from dimred.net.seeded import seeded
from dimred.runs.config.leaves import leaves
from dimred.runs.config.schema import checked_group
from dimred.runs.failures import is_of_the_machine
from dimred.runs.trial import give_logits


def build(node: DictConfig, group: str, **given: Any) -> Any:
    """Build the object that a group's `_target_` names. UserError as in `checked_group`."""
    described = checked_group(node, group, given)
    try:
        return instantiate(described, **given, _convert_="all")
    except InstantiationException as error:
        raise explained(error.__cause__ or error, described, group) from error


def explained(error: BaseException, described: Mapping[str, Any], group: str) -> BaseException:
    """The error of a failed builder with the values that it was given. UserErrors and errors of the
    system, such as a full disk, are returned as they are."""
    if is_of_the_machine(error) or not isinstance(
        error, (ArithmeticError, ValueError, TypeError, RuntimeError, LookupError)
    ):
        return error
    values = ", ".join(
        f"{group}.{key}={value}" for key, value in described.items() if key != "_target_"
    )
    reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    advice = f"Choose other values than {values}, or add" if values else "Add"
    return UserError(
        f"{described['_target_']} cannot be built ({reason}). {advice} --debug to see where"
    )


def build_model(model: Json, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """The model that a file describes (`require_own` has been asked), to be filled with the file's
    weights."""
    with seeded(seed):
        built = build(DictConfig(own_weights(model)), "model", shape=shape, classes=classes)
    give_logits(built, shape, classes, model["_target_"])
    return built


def own_weights(model: Mapping[str, Any]) -> Json:
    """The configuration of a model whose weights are known, so that its builder reads no file:
    `pretrained` becomes null, or false where it is a bool. A builder that accepts neither keeps its
    value."""
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
    except Exception as error:  # a valid checksum does not make the content valid
        why = f"it has no {error}" if isinstance(error, KeyError) else first_line(error)
        writer = f"dimred {version}" if version else "another version"
        raise UserError(
            f"{path} is whole, but does not describe a network of this dimred ({why}). It was "
            f"written by {writer}: read it with that, or {advice}"
        ) from error


def require_own(path: Path, described: Any, trust: bool, targets: Collection[str] = ()) -> None:
    """UserError if a file's configuration asks for code that is neither dimred's nor one of these
    targets, unless the file is trusted. A value with `${...}` is refused too: OmegaConf replaces it
    by other values, which may name any code."""
    safe = {f"dimred.models.{name}" for name in models.__all__} | set(targets)
    safe |= {"dimred.methods.bases.Interspace", "dimred.methods.bases.PowerProp"}
    others = []
    for keys, value in leaves(described):
        # a list of targets, or targets by name, are checked like a single one
        code = "_target_" in keys and str(value) not in safe
        if code or "${" in f"{keys}{value}":
            others.append(str(value))
    if others and not trust:
        raise UserError(
            f"{path} asks for code that is not dimred's: {', '.join(others)}. If you trust it, add "
            "--trust"
        )
