"""From a checked configuration to objects."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from dimred import models
from dimred.errors import NO_MEMORY, UserError
from dimred.fields.targets import hints_of, resolve
from dimred.fields.values import fits
from dimred.net.seeded import seeded
from dimred.runs.config.schema import checked_group
from dimred.runs.trial import give_logits
from dimred.storage.files import Json


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


def build_model(model: Json, shape: tuple[int, int, int], classes: int, seed: int) -> nn.Module:
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
    except Exception as error:  # whoever writes a checksum can write anything before it
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error).split("\n")[0]
        raise UserError(
            f"{path} is whole, but does not describe a network of this dimred ({why}). It was "
            "written by "
            f"{f'dimred {version}' if version else 'another version'}: read it with that, or "
            f"{advice}"
        ) from error


def require_own(path: Path, described: Any, trust: bool, targets: Collection[str] = ()) -> None:
    """UserError if a file's configuration asks for code that is neither dimred's nor one of these
    targets, unless the file is trusted. A value with `${...}` is refused too: OmegaConf replaces it
    by other values, which may name any code."""
    safe = {f"dimred.models.{name}" for name in models.__all__} | set(targets)
    safe |= {"dimred.methods.bases.Interspace", "dimred.methods.bases.PowerProp"}
    others = [
        str(value)
        for key, value in leaves(described)
        if "${" in f"{key}{value}" or (key == "_target_" and value not in safe)
    ]
    if others and not trust:
        raise UserError(
            f"{path} asks for code that is not dimred's: {', '.join(others)}. If you trust it, add "
            "--trust"
        )


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested JSON, each with its key. The items of a list have the key of the
    list."""
    if isinstance(node, (dict, list)):
        for name, value in (
            node.items() if isinstance(node, dict) else ((key, each) for each in node)
        ):
            yield from leaves(value, str(name))
    else:
        yield key, node
