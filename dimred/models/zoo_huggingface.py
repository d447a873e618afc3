"""Image classifiers of Hugging Face's transformers, by their configuration. Nothing is downloaded,
and no code of a repository is executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dimred.errors import UserError, extra, first_line, nearest
from dimred.models.common import not_in_place, prepare, require_options


def huggingface(
    *,
    shape: Sequence[int],
    classes: int,
    name: str,
    path: str | None,
    options: dict[str, Any] | None,
    init: str,
    pretrained: str | None,
) -> nn.Module:
    """transformers' image classifier of the type `name`, or of the config.json in the folder
    `path`, with these values of its configuration; `pretrained` is a file of its state dict."""
    options = options or {}
    auto = extra("transformers.models.auto.modeling_auto", "huggingface", "model=huggingface")
    given = {"num_labels": classes, "num_channels": shape[0], "image_size": shape[1]}

    def build(options: Mapping[str, Any]) -> nn.Module:
        config = _configuration(name, path, given, options)
        return auto.AutoModelForImageClassification.from_config(config)

    try:
        model = build(options)
    except UserError:
        raise
    except Exception as error:  # transformers checks little: its code raises errors of many types
        require_options(f"transformers' {path or name}", options, build, error)
        raise UserError(
            f"transformers' {path or name} cannot be built for images of "
            f"{'x'.join(map(str, shape))} ({type(error).__name__}: {first_line(error)}). Choose "
            "another dataset.resize"
        ) from error
    of_file = _configuration(name, path, {}, options)
    return prepare(not_in_place(model), init, pretrained, partial(_renamed, model, of_file))


def _renamed(model: nn.Module, config: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the names of the model. Files may have those of earlier versions of
    transformers, which its own loading translates."""
    if state.keys() <= model.state_dict().keys():
        return state
    like, found = type(model).from_pretrained(  # type: ignore[attr-defined]
        None, config=config, state_dict=state, output_loading_info=True
    )
    missing = set(found["missing_keys"])
    renamed = {name: value for name, value in like.state_dict().items() if name not in missing}
    return renamed | {name: state[name] for name in found["unexpected_keys"]}


def _configuration(
    name: str, path: str | None, given: Mapping[str, Any], options: Mapping[str, Any]
) -> Any:
    """The configuration of a type or a folder, with these values in place of its own."""
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    if path is None:
        _require_classifier(name, modeling_auto)
        config = AutoConfig.for_model(name)
    else:
        folder = Path(path).expanduser()
        if not (folder / "config.json").is_file():
            raise UserError(f"model.path={path} has no config.json. Name a folder that has one")
        # code that lies in the folder is not executed
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _require_classifier(config.model_type, modeling_auto)
    known = config.to_dict().keys() - {"transformers_version", "model_type", "architectures"}
    for key in options.keys() - known:  # transformers would ignore it
        raise UserError(f"{config.model_type} has no model.options.{key}. {nearest(key, known)}")
    for key, value in {**given, **options}.items():
        setattr(config, key, value)
    return config


def _require_classifier(name: str, auto: Any) -> None:
    known = [str(kind) for kind in auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES]
    if name not in known:
        raise UserError(
            f"transformers has no image classifier model.name={name!r}. {nearest(name, known)}"
        )
