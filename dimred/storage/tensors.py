"""Tensors in safetensors files with a checksum: checkpoints, snapshots, trained nets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dimred.errors import UserError
from dimred.files import Json, digest_of, write


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Json | None = None) -> None:
    """Write a safetensors file whose header holds `about`, as JSON, and a checksum of
    everything."""
    cpu = unshared({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    about = about or {}
    # one entry: the order of several differs from process to process in safetensors
    text = json.dumps(about | {"checksum": _checksum(cpu, json.dumps(about))})
    write(path, save(cpu, metadata={"about": text}))


def read_about(path: Path) -> Json:
    """The `about` of a file that `write_tensors` wrote, without reading its tensors, so its
    checksum is not verified; {} if the file is damaged."""
    with suppress(SafetensorError, OSError, ValueError), safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {}).get("about", "{}"))
    return {}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Json]:
    """What `write_tensors` wrote. UserError if the file is truncated or altered."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise damaged_run_file(path, error, path.parent) from None
    with suppress(ValueError, AttributeError):
        about = json.loads(header.get("about", ""))
        # files of older versions have the checksum in an entry of its own
        found = header.get("checksum") or about.pop("checksum", None)
        if found == _checksum(tensors, json.dumps(about)):
            return tensors, about
    raise damaged_run_file(path, "its checksum does not match its content", path.parent)


def damaged_run_file(path: Path, why: object, remove: Path) -> UserError:
    """The error for a file of a run folder that is not as it was written."""
    return UserError(
        f"{path} is damaged ({why}). Remove {remove} and give the run's command again: what is "
        "lost is computed again"
    )


def unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with copies of those that share memory with an earlier one, as tied weights
    do."""
    # safetensors refuses tensors that share memory
    seen, out = set[int](), {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        out[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return out


def _checksum(tensors: Mapping[str, Tensor], about: str) -> str:
    digest = digest_of(about.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        if tensors[name].numel():
            digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
