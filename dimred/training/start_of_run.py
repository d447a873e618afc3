"""The start of a run: initial weights, device, number of threads, versions. A resumed run ends with
the same bits only if these are the same, so checkpoints store them and resuming compares them.
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

WEIGHTS = "initial weights"  # the entry that must not change


def start_of_run(
    state: Mapping[str, Tensor], device: torch.device, processes: int = 1
) -> dict[str, str]:
    """The checksum of the initial state dict, the versions, and the device of the run."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        digest.update(name.encode() + bits(state[name]))
    found = {
        WEIGHTS: digest.hexdigest(),
        "torch": torch.__version__,
        "dimred": importlib.metadata.version("dimred"),
        "processes": str(processes),
    }
    if device.type == "cuda":
        return {**found, "device": torch.cuda.get_device_name(device)}
    # on a CPU the number of threads decides in which order sums are added
    return {**found, "device": device.type, "threads": str(torch.get_num_threads())}


def require_same_start(
    recorded: Mapping[str, str], now: Mapping[str, str], checkpoint: Path
) -> None:
    """UserError if the initial weights differ from those recorded in the checkpoint; a warning if
    versions, device or number of threads do."""
    changed = ", ".join(
        f"{key} {now.get(key, 'unknown')} instead of {value}"
        for key, value in recorded.items()
        if key != WEIGHTS and value != now.get(key)
    )
    if recorded[WEIGHTS] != now[WEIGHTS]:
        with_what = f" The run is resumed with {changed}." if changed else ""
        raise UserError(
            "the model's builder makes other initial weights than when this run "
            f"began.{with_what} A file that the builder reads may have changed, or it draws random "
            "numbers that no seed determines. Restore the file, or remove "
            f"{checkpoint.parent} to start the run again"
        )
    if changed:
        log.warning(
            "resumed with %s: the bits may differ from those of an uninterrupted run", changed
        )
