"""Loads pretrained weights from a file: all of them, except a classifier with another number of
classes.

Accepts the usual forms: a state dict, or a checkpoint that contains one among other entries;
written by safetensors or by torch.save; of the plain model, or of one wrapped by
DistributedDataParallel (`module.`) or torch.compile (`_orig_mod.`). No code in a file is executed.
"""

from __future__ import annotations

import logging
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dimred.errors import UserError, listed

log = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pt", ".pth")
#: the usual names of the state dict in a checkpoint
NESTED = ("state_dict", "model_state_dict", "model", "net")
#: prefixes that wrappers put before the names of parameters
PREFIXES = ("module.", "_orig_mod.")
ALLOWED = (
    "Allowed is null, the folder of a run, or a file of the model's state dict: "
    ".safetensors, .pt or .pth"
)


def is_file(pretrained: str) -> bool:
    """Whether `pretrained` names a file, and not published weights."""
    return Path(pretrained).suffix in SUFFIXES


def read(path: str, model: nn.Module) -> dict[str, Tensor]:
    """The state dict in the file `path`, under the model's names; a missing or damaged file is a
    UserError."""
    file = Path(str(path)).expanduser().absolute()
    try:
        found = (
            load_file(file)
            if file.suffix not in (".pt", ".pth")
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except pickle.UnpicklingError:
        raise UserError(
            f"Cannot read model.pretrained={path}: torch.load(weights_only=True) "
            "refuses it. It is damaged, or it contains more than tensors, and dimred executes no "
            "code from a file. Save the state dict alone: "
            "torch.save(model.state_dict(), path)"
        ) from None
    except (
        OSError,
        SafetensorError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
    ) as error:
        why = str(error).split("\n")[0]
        raise UserError(
            f"Cannot read model.pretrained={path} ({file}): {why}. {ALLOWED}"
        ) from error
    state = model.state_dict()  # with the module versions that some torchvision models need
    tensors = unwrapped(state_dict_in(found, path), set(state))
    state.clear()
    state.update(tensors)
    return state


def state_dict_in(found: Any, path: str) -> dict[str, Tensor]:
    """The content of a file if it is a state dict, else its entry under one of the usual names."""
    content = found if isinstance(found, Mapping) else {}
    for name in (None, *NESTED):
        state = content if name is None else content.get(name)
        if (
            isinstance(state, Mapping)
            and state
            and all(isinstance(value, Tensor) for value in state.values())
        ):
            return dict(state)
    holds = f"the entries {listed(map(str, content))}" if content else f"a {type(found).__name__}"
    raise UserError(
        f"model.pretrained={path} contains no state dict, but {holds}. Allowed is a dictionary "
        f"of tensors, alone or as the entry {', '.join(NESTED[:-1])} or {NESTED[-1]}. Save it "
        "with torch.save(model.state_dict(), path)"
    )


def unwrapped(state: dict[str, Tensor], names: set[str]) -> dict[str, Tensor]:
    """A state dict without the prefixes of wrappers. A prefix is removed if all names have it."""
    for prefix in (*PREFIXES, *PREFIXES):  # in either order
        bare = {name.removeprefix(prefix): value for name, value in state.items()}
        # The model may have a module of this name itself; then the names match better with it.
        fits = len(names & bare.keys()) >= len(names & state.keys())
        if fits and all(name.startswith(prefix) for name in state):
            state = bare
    return state


def load(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Copy `state` into `model`. The final classifier keeps its initial values if `state` has none
    or one with another number of classes.

    UserError if any other name or shape differs.
    """
    own, name = model.state_dict(), head(model)
    why = _new_head(name, own, state)
    if why:
        state.update({key: own[key] for key in _parts(name, own)})
    # Files from before PyTorch 0.4.1 lack BatchNorm's count of batches.
    state.update(
        {key: own[key] for key in own if key.endswith("num_batches_tracked") and key not in state}
    )
    shapes = [
        f"{key} {list(state[key].shape)} instead of {list(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    missing, unexpected = ([], []) if shapes else model.load_state_dict(state, strict=False)
    _require_match(source, shapes, missing, unexpected)
    if why:
        log.info("%s %s: the classifier %s keeps its initial values", source, why, name)


def head(model: nn.Module) -> str:
    """The name of the final classifier: the last Linear or Conv2d (as in SqueezeNet) that the model
    registers."""
    return [
        name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))
    ][-1]


def _parts(name: str, state: dict[str, Tensor]) -> list[str]:
    return [key for key in (f"{name}.weight", f"{name}.bias") if key in state]


def _new_head(name: str, own: dict[str, Tensor], state: dict[str, Tensor]) -> str:
    """Why the classifier `name` keeps its initial values: `state` has none, or one that differs in
    the number of outputs alone. Empty if it is to be loaded."""
    weight = f"{name}.weight"
    if not _parts(name, state):
        return "has no classifier"
    there = state.get(weight)
    if there is None or there.shape[1:] != own[weight].shape[1:] or len(there) == len(own[weight]):
        return ""
    return f"has {len(there)} classes, this model {len(own[weight])}"


def _require_match(
    source: str, shapes: list[str], missing: list[str], unexpected: list[str]
) -> None:
    found = [
        ("wrong shape", shapes),
        ("only in this model", missing),
        ("only in the file", unexpected),
    ]
    problems = [f"{what}: {listed(names)}" for what, names in found if names]
    if problems:
        raise UserError(
            f"model.pretrained={source} contains another network. {'; '.join(problems)}. "
            f"Choose the model (and its width and depth) that was saved, or model.pretrained=null."
        )
