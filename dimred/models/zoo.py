"""torchvision's classification models, from scratch or with torchvision's pretrained weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision import models as zoo

from dimred.errors import UserError, nearest
from dimred.models.common import not_in_place, prepare
from dimred.models.pretrained import SUFFIXES, is_file, load
from dimred.network import require_answer


def torchvision(
    *, shape: Sequence[int], classes: int, name: str, init: str, pretrained: str | None
) -> nn.Module:
    """torchvision's model `name`; `pretrained` is a file of its state dict or one of torchvision's
    weights by name."""
    _require_known(name, shape)
    from_file = pretrained is not None and is_file(pretrained)
    weights = None if pretrained is None or from_file else _weights(name, str(pretrained))

    model = prepare(
        _build(name, shape, classes, weights is not None), init, pretrained if from_file else None
    )
    not_in_place(model)
    if weights is not None:
        load(model, _download(name, weights), f"torchvision's {name} {weights.name}")
    return model


def _require_known(name: str, shape: Sequence[int]) -> None:
    if name not in (known := zoo.list_models(module=zoo)):
        raise UserError(
            f"Unknown torchvision model model.name={name!r}. {nearest(str(name), known)}"
        )
    if shape[0] != 3:
        raise UserError(
            f"torchvision's {name} needs images with 3 channels, these have {shape[0]}. Choose a "
            "dataset of colour images, or a model for any number of channels, such as "
            "model=resnet18."
        )


def _weights(name: str, pretrained: str) -> Any:
    """An entry of torchvision's enumeration of weights. DEFAULT is torchvision's alias of the
    best one."""
    known = zoo.get_model_weights(name).__members__
    if pretrained not in known:
        raise UserError(
            f"torchvision's {name} has no weights model.pretrained={pretrained!r}. "
            f"{nearest(pretrained, known)} Or null, the folder of a run, or a path "
            f"that ends in {', '.join(SUFFIXES)}."
        )
    return known[pretrained]


def _build(name: str, shape: Sequence[int], classes: int, pretrained: bool) -> nn.Module:
    """The model. UserError if it cannot compute on images of `shape`, which is tried on the meta
    device, without data."""
    try:
        model = zoo.get_model(
            name, weights=None, num_classes=classes, **_options(name, shape, pretrained)
        )
        state = {key: tensor.to("meta") for key, tensor in model.state_dict().items()}
        with torch.no_grad():
            functional_call(model.eval(), state, torch.empty(1, *shape, device="meta"))
        return model.train()
    except (RuntimeError, AssertionError, ValueError) as error:
        smallest = min(weights.meta["min_size"][0] for weights in zoo.get_model_weights(name))
        raise UserError(
            f"torchvision's {name} cannot take images of {shape[1]}x{shape[2]} pixels ({error}). "
            f"Set dataset.resize={smallest}, the smallest size it is made for."
        ) from error


def _options(name: str, shape: Sequence[int], pretrained: bool) -> dict[str, Any]:
    """Arguments of some builders: no auxiliary outputs (a model returns logits only), and the image
    size of vision transformers."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True, "transform_input": pretrained}
    return {"image_size": shape[1]} if name.startswith("vit_") else {}


def _download(name: str, weights: Any) -> dict[str, Tensor]:
    """torchvision's state dict, from its cache or the network, loaded with weights_only=True."""
    file = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
    try:
        if not file.exists():
            require_answer(weights.url)
        state = weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except Exception as error:  # of the network or of a damaged file; the advice is the same
        # only the first sentence: torch's next one advises to execute the code in the file
        reason = str(error).split(". ")[0]
        raise UserError(
            f"Cannot load torchvision's {name} {weights.name} ({type(error).__name__}: {reason}). "
            f"Get {weights.url} where there is a network and put it at {file}, replacing what is "
            f"there, or set model.pretrained=null."
        ) from error
    auxiliary = ("AuxLogits.", "aux1.", "aux2.")
    for key in [key for key in state if key.startswith(auxiliary)]:
        del state[key]
    for key in [key for key in state if re.search(r"denselayer\d+\.(norm|conv)\.\d\.", key)]:
        # DenseNet's files have the names of old versions, norm.1 for norm1
        state[re.sub(r"\.(norm|conv)\.(\d)\.", r".\1\2.", key)] = state.pop(key)
    return state
