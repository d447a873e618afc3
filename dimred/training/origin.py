"""What a run began with: initial weights, device, number of threads, versions. A run that is
resumed ends with the same bits only where these are the same, so a checkpoint holds them, and a run
that is resumed compares.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dimred.errors import UserError
from dimred.net.seeded import bits

log = logging.getLogger(__name__)

Origin = dict[str, str]


def origin(state: Mapping[str, Tensor], device: torch.device) -> Origin:
    """Of a run that begins with this state dict: its checksum, and what it is computed by."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        digest.update(name.encode() + bits(state[name]))
    found = {
        "initial weights": digest.hexdigest(),
        "torch": torch.__version__,
        "dimred": importlib.metadata.version("dimred"),
    }
    if device.type == "cuda":
        return {**found, "device": torch.cuda.get_device_name(device)}
    return {**found, "device": device.type, "threads": str(torch.get_num_threads())}


def compare(then: Origin, now: Origin, checkpoint: Path) -> None:
    """Warn where a run is resumed on something else than it began on. UserError if its initial
    weights differ."""
    changed = [
        f"{key} {now.get(key, 'unknown')} instead of {value}"
        for key, value in then.items()
        if key != "initial weights" and value != now.get(key)
    ]
    elsewhere = f" It is resumed with {', '.join(changed)}." if changed else ""
    if then["initial weights"] != now["initial weights"]:
        raise UserError(
            "the model's builder makes other initial weights than when this run "
            f"began.{elsewhere} A file "
            "that it reads may have changed, or it draws numbers that no seed "
            "determines. Restore what it "
            f"read, or remove {checkpoint.parent} to start the run anew"
        )
    if changed:
        log.warning(
            "resumed with %s: the bits may differ from those of a run in one go", ", ".join(changed)
        )
