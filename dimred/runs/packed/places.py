"""Where runs are computed side by side: every visible GPU, or the CPU; and how many fit there."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

MARGIN = 1.1  # of the measured peak: later runs may need a little more than the first
CONTEXT = 600 * 2**20  # bytes of GPU memory that a process takes besides its tensors
MOST_CLIENTS = 48  # processes on one GPU that NVIDIA's MPS serves
CPU = -1  # among the numbers of GPUs
DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # of NVIDIA, of WSL, of AMD


@dataclass(eq=False)
class Place:
    """A GPU or the CPU.

    visible: CUDA_VISIBLE_DEVICES of its workers; None for the CPU
    most: runs at once, whatever their memory
    first: of these, those that a sweep begins with; None: one, which is measured
    at_once: those that fit into memory, as far as is known
    """

    visible: str | None
    most: int
    first: int | None
    at_once: int | None = field(init=False)

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """A new sweep begins: its runs may need more memory, or less."""
        self.at_once = self.first

    def room(self) -> int:
        """The number of runs that may be computed now."""
        return self.at_once or 1

    def workers(self) -> int:
        """The number of workers that will be needed: they import while the first run is
        measured."""
        return self.at_once or self.most

    def measure(self, peak: int, free: int) -> None:
        """A first run took `peak` bytes of GPU memory, and `free` are left without it."""
        self.at_once = max(1, min(self.most, fitting(peak, free)))

    def one_fewer(self) -> None:
        """So many did not fit."""
        self.at_once = max(1, self.room() - 1)


def fitting(peak: int, free: int) -> int:
    """The runs that fit into free memory; the process of the first is there already."""
    return int((free + CONTEXT) / (MARGIN * peak + CONTEXT))


def place(number: int, at_once: int | None, share: int, gpus: list[str]) -> Place:
    """A GPU, or the CPU, which computes one run a core.

    at_once: if it is given; else no more than a share of the cores"""
    if number == CPU:
        return Place(None, at_once or share, at_once or share)
    return Place(gpus[number], at_once or min(share, MOST_CLIENTS), at_once)


def homes(device: str, gpus: int) -> list[int]:
    """The numbers of the GPUs that may compute a run for this device, or the CPU's. The CPU also
    takes runs for devices that there are not: their error names the device."""
    if device in ("auto", "cuda") and gpus:
        return list(range(gpus))
    if (numbered := re.fullmatch(r"cuda:(\d+)", device)) and int(numbered[1]) < gpus:
        return [int(numbered[1])]
    return [CPU]


def visible_gpus() -> list[str]:
    """A CUDA_VISIBLE_DEVICES for each GPU that this process may use. Starts no context on them."""
    # to import torch takes seconds
    if not any(Path(driver).exists() for driver in DRIVERS):
        return []
    import torch

    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in given.split(",")] if given else [*map(str, range(count))]
    # a process sees one instance of divided GPUs (MIG) at most, and workers may have one each
    if count == 1 and all(name.startswith("MIG-") for name in names):
        return names
    return names[:count]


def cores() -> int:
    """The cores that this process may use: of its affinity, and of the quota of its container."""
    found = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        found = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # "max 100000" where there is no quota
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        found = min(found, max(1, int(quota) // int(period)))
    return found
