"""The machine: what a process sets before it computes, and the device that it computes on."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from dimred.errors import require

if TYPE_CHECKING:
    import torch

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h


def prepare_process() -> None:
    """To be called before torch is imported; where a C library knows nothing of it, nothing
    happens."""
    # Threads that wait for work spin a little, then sleep: beside another busy process, spinning on
    # (the default) can make small nets 60x slower; this costs them 20 % on a quiet machine, and
    # large nets nothing.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # glibc gives large blocks back to the system as soon as they are free, and every activation of
    # every batch then costs its page faults again: half of the time of ResNet-20's evaluation.
    # Kept, they are used again.
    with suppress(OSError, AttributeError, TypeError):
        set_option = ctypes.CDLL(None).mallopt
        for option, value in (
            (M_MMAP_MAX, 0),
            (M_TRIM_THRESHOLD, 2**31 - 1),
            (M_TOP_PAD, 64 * 2**20),
        ):
            set_option(option, value)


def find_device(name: str) -> torch.device:
    """auto is the first GPU where there is one. UserError if there is no such device."""
    import torch

    count = torch.cuda.device_count()
    allowed = ["auto", "cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    require(name in allowed, "device", name, f"one of {', '.join(allowed)} (what this machine has)")
    return torch.device("cuda" if count else "cpu") if name == "auto" else torch.device(name)
