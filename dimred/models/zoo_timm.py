"""timm's image classifiers, from scratch, from a file or with timm's published weights."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from dimred.errors import UserError, extra, first_line, nearest
from dimred.models.common import not_in_place, prepare, require_options
from dimred.models.pretrained import SUFFIXES, is_file
from dimred.network import hub


def timm(
    *,
    shape: Sequence[int],
    classes: int,
    name: str,
    options: dict[str, Any] | None,
    init: str,
    pretrained: str | None,
) -> nn.Module:
    """timm's model `name`, built with these arguments; `pretrained` is a file of its state dict or
    the tag of weights that timm publishes: from Hugging Face's cache or the network, read without
    executing code, with a new classifier for another number of classes."""
    options = options or {}
    models = extra("timm.models", "timm", "model=timm")
    _require_known(name, models)
    tag = None if pretrained is None or is_file(pretrained) else pretrained
    config = _published(name, tag, models)
    given: dict[str, Any] = {"num_classes": classes, "in_chans": shape[0]}
    if config.fixed_input_size:
        given["img_size"] = tuple(shape[1:])

    def build(options: Mapping[str, Any], pretrained: bool = False) -> nn.Module:
        arguments = {"pretrained": pretrained, "pretrained_cfg": config.to_dict()}
        return models.create_model(name.partition(".")[0], **arguments, **{**given, **options})

    unreachable = ""
    try:
        if tag:
            with hub() as unreachable:
                return not_in_place(build(options, pretrained=True))
        model = build(options)
    except Exception as error:  # timm checks little: its code raises errors of many types
        _require_taken(name, options, error)
        require_options(f"timm's {name}", options, build, error)
        if tag:
            raise _not_loaded(f"{name} {tag}", unreachable, error) from error
        raise _not_built(name, shape, config.input_size, error) from error
    return prepare(not_in_place(model), init, pretrained, partial(_adapted, model))


def _require_known(name: str, models: Any) -> None:
    """A name is that of an architecture, or of one and weights that timm publishes for it."""
    architecture, _, tag = name.partition(".")
    if models.is_model(architecture) and (not tag or name in models.list_pretrained(name)):
        return
    known = {*models.list_models(), *models.list_pretrained()}
    raise UserError(f"Unknown timm model model.name={name!r}. {nearest(name, known)}")


def _require_taken(name: str, options: Mapping[str, Any], error: Exception) -> None:
    """UserError if the model failed because it does not take one of these options."""
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if found and found[1] in options:
        raise UserError(
            f"timm's {name} has no model.options.{found[1]} ({first_line(error)}). "
            "Correct its name or leave it out; allowed are the arguments of timm's class"
        ) from error


def _published(name: str, tag: str | None, models: Any) -> Any:
    """timm's description of its weights of this tag, or of the model's first ones."""
    architecture, _, own = name.partition(".")
    if not tag:
        return models.get_pretrained_cfg(f"{architecture}.{own}" if own else architecture)
    known = [each.partition(".")[2] for each in models.list_pretrained(f"{architecture}.*")]
    if tag not in known:
        raise UserError(
            f"timm's {architecture} has no weights model.pretrained={tag!r}. {nearest(tag, known)} "
            f"Or null, the folder of a run, or a path that ends in {', '.join(SUFFIXES)}."
        )
    return models.get_pretrained_cfg(f"{architecture}.{tag}")


def _not_built(
    name: str, shape: Sequence[int], made_for: Sequence[int], error: Exception
) -> UserError:
    return UserError(
        f"timm cannot build {name} for images of {'x'.join(map(str, shape))} "
        f"({type(error).__name__}: {first_line(error)}). It is made for "
        f"{'x'.join(map(str, made_for))}: set dataset.resize={made_for[-1]}"
    )


def _not_loaded(what: str, unreachable: str, error: Exception) -> UserError:
    """Of the network or of a damaged file; the advice is the same."""
    why = f"{type(error).__name__}: {first_line(error)}"
    if unreachable:
        why = f"{unreachable}, and they are not in its cache"
    return UserError(
        f"Cannot load timm's {what} ({why}). Get the weights where there is a network and name "
        "their file: model.pretrained=PATH.safetensors, or set model.pretrained=null"
    )


def _adapted(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as timm's own loading converts it: names of the original code, and position
    embeddings, biases and patches of other sizes."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    found: Mapping[str, Tensor] = convert(state, model) if convert else state
    return dict(found)
