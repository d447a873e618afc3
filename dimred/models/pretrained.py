"""Loads pretrained weights from a file: all of them, except a classifier with another number of
classes. Position embeddings of another image size are resized.

Accepts the usual forms: a state dict, or a checkpoint that contains one among other entries;
written by safetensors or by torch.save; of the plain model, or of one wrapped by
DistributedDataParallel (`module.`) or torch.compile (`_orig_mod.`). No code in a file is executed.
"""

from __future__ import annotations

import argparse
import logging
import math
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dimred.errors import UserError, counted, first_line, listed, plural

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
        found = load_file(file) if file.suffix not in (".pt", ".pth") else read_weights(file)
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
        raise UserError(
            f"Cannot read model.pretrained={path} ({file}): {first_line(error)}. {ALLOWED}"
        ) from error
    state = model.state_dict()  # with the module versions that some torchvision models need
    tensors = unwrapped(state_dict_in(found, path), set(state))
    state.clear()
    state.update(tensors)
    return state


def read_weights(file: Path) -> Any:
    """The content of a file of torch.save: tensors and plain values, no code."""
    # checkpoints of timm and DeiT have their command line beside the weights
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(file, map_location="cpu", weights_only=True)


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
    """Copy `state` into `model`. A classifier keeps its initial values if `state` has none or one
    with another number of classes; position embeddings of another image size are resized.

    UserError if any other name or shape differs.
    """
    own = model.state_dict()
    kept, why = _classifiers(model, own, state)
    state.update({key: own[key] for key in kept})
    # Files from before PyTorch 0.4.1 lack BatchNorm's count of batches.
    state.update(
        {key: own[key] for key in own if key.endswith("num_batches_tracked") and key not in state}
    )
    for key in _others(own, state):
        if (resized := positions(state[key], own[key].shape)) is not None:
            state[key] = resized
    shapes = [
        f"{key} {list(state[key].shape)} instead of {list(own[key].shape)}"
        for key in _others(own, state)
    ]
    missing, unexpected = ([], []) if shapes else model.load_state_dict(state, strict=False)
    _require_match(source, shapes, missing, unexpected)
    if why:
        names = list(dict.fromkeys(key.rpartition(".")[0] for key in kept))
        which = f"{plural('classifier', len(names))} {', '.join(names)}"
        log.info("%s %s: %s left at initial values", source, why, which)


def _others(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors that have another shape in the file."""
    return [key for key in own if key in state and state[key].shape != own[key].shape]


# -- classifiers --------------------
def _classifiers(
    model: nn.Module, own: dict[str, Tensor], state: dict[str, Tensor]
) -> tuple[list[str], str]:
    """The weights and biases of classifiers that keep their initial values, and why: the file has
    none, or the last layer differs in the number of outputs alone. A model may have two, such as
    one for distillation."""
    parts = [f"{name}.{kind}" for name in _matrices(model) for kind in ("weight", "bias")]
    last = [key for key in parts[-2:] if key in own]
    if not any(key in state for key in last):
        return last, "has no classifier"
    differ = {key: _classes(state[key].shape, own[key].shape) for key in _others(own, state)}
    counts = {differ[key] for key in last if key in differ}
    if len(counts) != 1 or (count := counts.pop()) is None:
        return [], ""
    found = [key for key in parts if differ.get(key) == count]
    return found, f"has {counted(count[0], 'class')}, this model {count[1]}"


def _classes(then: torch.Size, now: torch.Size) -> tuple[int, int] | None:
    """The two numbers of outputs of a weight or bias that differs in nothing else."""
    return (then[0], now[0]) if then[1:] == now[1:] else None


def _matrices(model: nn.Module) -> list[str]:
    """The layers that may be a classifier, which comes last. SqueezeNet's is a convolution."""
    kinds = (nn.Linear, nn.Conv2d)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


# -- position embeddings --------------------
def positions(embedding: Tensor, shape: torch.Size) -> Tensor | None:
    """The embedding (1, prefix + n^2, dim) of square images at another size, of this shape: the
    square is resized as timm does (bicubic with antialiasing), the tokens before it are kept. None
    if it is no such embedding."""
    if embedding.dim() != 3 or len(shape) != 3 or shape[0] != 1 or len(embedding) != 1:
        return None
    if embedding.shape[2] != shape[2]:
        return None
    for prefix in range(min(embedding.shape[1], shape[1])):
        before, after = (math.isqrt(n - prefix) for n in (embedding.shape[1], shape[1]))
        if (prefix + before**2, prefix + after**2) == (embedding.shape[1], shape[1]):
            grid = embedding[:, prefix:].unflatten(1, (before, before)).permute(0, 3, 1, 2)
            grid = F.interpolate(grid.float(), (after, after), mode="bicubic", antialias=True)
            flat = grid.flatten(2).transpose(1, 2).to(embedding.dtype)
            return torch.cat([embedding[:, :prefix], flat], 1)
    return None


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
