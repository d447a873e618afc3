"""Files that are replaced in one step, and tensors with a checksum."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dimred.errors import UserError

Json = dict[str, Any]


def write(path: Path, content: bytes) -> None:
    """Replace a file in one step; its folder is made if need be."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}). What was written before is intact; make room or "
            "choose another place (of runs: outputs=...)"
        ) from None
    finally:  # if the process is killed here, the next one that holds the folder removes it
        with suppress(OSError):
            temporary.unlink()


def damaged(path: Path, why: object, remove: Path) -> UserError:
    return UserError(
        f"{path} is damaged ({why}). Remove {remove} and give the run's command again: what is lost is "
        "computed again"
    )


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Json | None = None) -> None:
    """A safetensors file with `about`, JSON, and a checksum of it all in its header."""
    cpu = apart({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    about = about or {}
    # one entry alone: of several, safetensors writes another one first in every process
    text = json.dumps(about | {"checksum": _checksum(cpu, json.dumps(about))})
    write(path, save(cpu, metadata={"about": text}))


def read_about(path: Path) -> Json:
    """The `about` of such a file, without its tensors (and so unchecked); nothing if it is
    damaged."""
    with suppress(SafetensorError, OSError, ValueError), safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {}).get("about", "{}"))
    return {}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Json]:
    """What `write_tensors` wrote. UserError if the file is truncated or altered."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise damaged(path, error, path.parent) from None
    with suppress(ValueError, AttributeError):
        about = json.loads(header.get("about", ""))
        # apart, in files of older versions
        found = header.get("checksum") or about.pop("checksum", None)
        if found == _checksum(tensors, json.dumps(about)):
            return tensors, about
    raise damaged(path, "its checksum does not match its content", path.parent)


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with a copy of each that shares its memory with one before it, as tied weights
    do."""
    seen, out = set[int](), {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        out[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return out


def _hash(content: bytes = b"") -> Any:
    return hashlib.blake2b(content, digest_size=16)


def _checksum(tensors: Mapping[str, Tensor], about: str) -> str:
    digest = _hash(about.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        if tensors[name].numel():
            digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
