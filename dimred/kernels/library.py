"""The compiled kernels: built by this machine's compiler at their first use, and kept in a cache.

A library is named by a hash of all that it depends on: sources, compiler, flags and CPU. A checksum
beside it tells a damaged one, which is built again. No path is read from data or checkpoints.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
SOURCES = ("linear.cpp", "conv2d.cpp", "batch_norm.cpp", "transpose.cpp")
HEADERS = ("vectors.h", "tiles.h", "plan.h")
COMPILERS = ("c++", "g++", "clang++")
#: no -ffast-math: linked into a library, it flushes denormals to zero in the whole process
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC")
#: flags for this CPU and for threads, from the best to what every compiler has. On macOS, PyTorch
#: has an OpenMP of its own, and a second one in a process ends it
TUNED = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-march=native",), ())
LONGEST_BUILD = 300  # seconds


class Unavailable(Exception):
    """Why there are no kernels."""


@cache
def library() -> ctypes.CDLL | None:
    """The kernels, built if need be; None, after one line in the log, where that is impossible."""
    try:
        return load(cache_folder())
    except (Unavailable, OSError, RuntimeError) as error:  # the last without a home directory
        log.warning(
            "no sparse kernels (%s): Linear layers use PyTorch's embedding_bag, convolutions "
            "dense weights",
            error,
        )
        return None


def library_name() -> str:
    """The hash that names the library; empty if there is none."""
    loaded = library()
    return Path(loaded._name).stem if loaded else ""


def cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(root) / "dimred" / "kernels"


def load(folder: Path) -> ctypes.CDLL:
    """Load the library of this folder, or build it first. Other processes wait meanwhile."""
    compiler = find_compiler()
    with locked(folder):
        for flags in flag_sets():
            path = folder / f"{name_of(compiler, flags)}.so"
            if is_whole(path) or build(compiler, flags, path):
                return ctypes.CDLL(str(path))
    raise Unavailable(f"{compiler} cannot compile them")


def find_compiler() -> str:
    for name in COMPILERS:
        if path := shutil.which(name):
            return path
    raise Unavailable(f"none of the compilers {', '.join(COMPILERS)} is installed")


def flag_sets() -> Iterator[tuple[str, ...]]:
    for tuned in TUNED:
        if sys.platform != "darwin" or "-fopenmp" not in tuned:
            yield (*FLAGS, *tuned)


# -- the cache --------------------
@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder until the block or the process ends."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise Unavailable(f"{folder} belongs to another user")
    with open(folder / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def name_of(compiler: str, flags: tuple[str, ...]) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    parts = [compiler, version, *flags, cpu()]
    parts += [(FOLDER / name).read_text() for name in (*SOURCES, *HEADERS)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def cpu() -> str:
    """The instructions that this CPU has, as far as the system tells."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    told = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return "\n".join([platform.machine(), platform.processor(), *sorted(told)])


def is_whole(path: Path) -> bool:
    """Whether a library is there as it was built."""
    checksum = path.with_suffix(".sha256")
    return path.exists() and checksum.exists() and checksum.read_text() == sha256(path)


def build(compiler: str, flags: tuple[str, ...], path: Path) -> bool:
    """Compile the kernels; whether the compiler can."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    sources = [str(FOLDER / name) for name in SOURCES]
    command = [compiler, *flags, *sources, "-o", str(temporary)]
    log.info("building the sparse kernels, which takes some seconds: %s", path)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_BUILD)
        if done.returncode:
            log.debug("%s\n%s", " ".join(command), done.stderr)
            return False
        path.with_suffix(".sha256").write_text(sha256(temporary))
        # a library that is loaded is never written into: renaming gives it another file
        temporary.replace(path)
    except subprocess.TimeoutExpired:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
