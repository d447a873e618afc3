"""Saves a trained net to a compact file, and loads the model from one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from dimred.errors import UserError
from dimred.files import Json, write
from dimred.net import Net
from dimred.net.state import unsaved
from dimred.runs.build import build_model, require_own, written_by
from dimred.storage.compact_bytes import encode, fill, opened, unpacked
from dimred.storage.stored import array

AGAIN = "export it again"


def save_compact(path: Path, net: Net, about: Json, half: bool = False) -> int:
    """Write a net to a compact file; its size in bytes. UserError if the file does not give the
    same network again.

    about: "model", its configuration, and "shape" and "classes" of the images: as `load_run`
    returns them.
    half: write numbers in half precision, for nearly the same logits.
    """
    content = as_bytes(net, about, half)
    images = torch.rand(2, *about["shape"], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.train(False)
        logits, again = net(images), decode(content, path, trust=True)(images)
    # the tensors are the same to the bit, which `decode` has checked; kernels may round differently
    # where they lie elsewhere in memory
    if not half and not torch.allclose(logits, again, rtol=1e-4, atol=1e-5):
        raise UserError(
            f"{type(net.model).__name__} computes something else when it is made again from its "
            "tensors and its configuration. Export it with --format dense"
        )
    write(path, content)
    return len(content)


def as_bytes(net: Net, about: Json, half: bool = False) -> bytes:
    """The content of the file that `save_compact` writes."""
    return encode(net, about, changed_buffers(net, about), half)


def load_compact(path: Path | str, trust: bool = False) -> nn.Module:
    """The network of a compact file, on the CPU, in evaluation mode. UserError if the file is
    damaged, of a newer version, or asks for code that is not dimred's and is not trusted."""
    try:
        content = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}). Name a file that dimred export --format "
            "compact wrote"
        ) from None
    return decode(content, Path(path), trust)


def changed_buffers(net: Net, about: Json) -> dict[str, np.ndarray]:
    """The buffers beyond the state dict whose values have changed since the builder made them. A
    buffer of another shape is a cache, which the model fills again."""
    own = unsaved(net.model)
    if not own:
        return {}
    built = unsaved(build_model(about["model"], tuple(about["shape"]), about["classes"], net.seed))
    same_shape = [name for name in own if name in built and own[name].shape == built[name].shape]
    return {
        name: array(own[name])
        for name in same_shape
        if not torch.equal(own[name].cpu(), built[name])
    }


def decode(content: bytes, path: Path, trust: bool = False) -> nn.Module:
    packed, tensors = opened(content, path)
    with written_by(path, None, AGAIN):
        header = unpacked(packed)
        writer, model = str(header["dimred"]), header["model"]
    require_own(path, model, trust)
    with written_by(path, writer, AGAIN):
        built = build_model(model, tuple(header["shape"]), header["classes"], header.get("seed", 0))
        fill(built, header, tensors)
    return built.eval()
