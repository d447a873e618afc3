"""The machine: what a process sets before it computes, its device, peak memory and versions."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dimred.errors import UserError, counted, require

if TYPE_CHECKING:
    import torch

#: what torchrun sets
OF_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h


def prepare_process() -> None:
    """Set what makes small nets fast. Call it before torch is imported; without glibc the memory
    settings have no effect."""
    # Threads without work spin a little, then sleep. Spinning on, the default, can make small nets
    # 60x slower beside another busy process; sleeping costs them 20 % on an idle machine, and large
    # nets nothing.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # cuBLAS adds up in the same order in every run if it has a workspace of its own for each stream
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # glibc returns large blocks to the system as soon as they are free, so every activation of
    # every batch costs its page faults again: half of the time of ResNet-20's evaluation. Keep and
    # reuse them.
    with suppress(OSError, AttributeError, TypeError):
        set_option = ctypes.CDLL(None).mallopt
        for option, value in (
            (M_MMAP_MAX, 0),
            (M_TRIM_THRESHOLD, 2**31 - 1),
            (M_TOP_PAD, 64 * 2**20),
        ):
            set_option(option, value)


def several() -> bool:
    """Whether torchrun has started several processes for one run."""
    return all(each in os.environ for each in OF_TORCHRUN) and int(os.environ["WORLD_SIZE"]) > 1


def rank() -> int:
    """The number of this process among those of its run; 0 where it is alone."""
    return int(os.environ["RANK"]) if several() else 0


def find_device(name: str) -> torch.device:
    """auto is the first GPU where there is one, or of the GPUs that of this process where torchrun
    has started several. UserError if there is no such device."""
    import torch

    count = torch.cuda.device_count()
    if several() and name != "cpu" and count:
        return own_gpu(name, count)
    allowed = ["auto", "cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    require(name in allowed, "device", name, f"one of {', '.join(allowed)} (what this machine has)")
    if name in ("auto", "cuda") and count:
        return torch.device("cuda", 0)  # without a number, it is that of the run before
    return torch.device("cpu" if name == "auto" else name)


def own_gpu(name: str, count: int) -> torch.device:
    """The GPU of this process, of so many on this machine."""
    import torch

    require(name in ("auto", "cuda"), "device", name, "auto, cpu or cuda: each process has a GPU")
    own = int(os.environ["LOCAL_RANK"])
    if own >= count:
        raise UserError(
            f"torchrun has started more processes on this machine than it has GPUs ({count}). "
            f"Choose --nproc-per-node {count}, or device=cpu"
        )
    return torch.device("cuda", own)


def describe_device(device: torch.device) -> str:
    """The GPU's name, or the number of threads."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu ({counted(threads, 'thread')})"


def peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU's memory since `reset_peak_memory`, or of the process."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak_memory(device: torch.device) -> None:
    """Measure the GPU's peak memory from now on."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def software() -> dict[str, Any]:
    """The versions that compute a run."""
    packages = ("dimred", "torch", "torchvision", "numpy")
    return {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "commit": git_commit(),
    }


def git_commit() -> str | None:
    """The commit of the repository that dimred lies in, with + if files have changed; None outside
    of a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
