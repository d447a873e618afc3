"""The tests of sparse products, with kernels that are built for CPUs of other kinds.

x86-64 executes its older instructions itself. Kernels for ARM run in QEMU's emulator, in a process
to which calls are sent. Those need, on Debian, the packages g++-aarch64-linux-gnu and qemu-user.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from remote import kernels_of

from dimred.kernels import library

HERE = Path(__file__).parent
TUNED = {"sse2": "-march=x86-64", "avx2": "-march=haswell"}
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
SYSTEM = "/usr/aarch64-linux-gnu"  # the libraries of the emulated machine
KINDS = (*TUNED, "neon")
#: all that multiply; not those of how the library is built and kept
TESTS = ("tests/test_sparse_kernels.py", "tests/test_arithmetic.py")
CHOSEN = "is_the_dense_one or threads or pytorch or layout or gradients or get_no_gradient"
ARGUMENTS = ["-q", "--no-header", "--durations=3", "-k", CHOSEN, *TESTS]


def build(folder: Path) -> list[str]:
    """Build the kernels for ARM and what calls them; the command of that process."""
    for command in (COMPILER, EMULATOR):
        if not shutil.which(command):
            sys.exit(f"neon needs {command}: install g++-aarch64-linux-gnu and qemu-user")
    kernels, serve = str(folder / "kernels.so"), str(folder / "serve")
    sources = [str(library.FOLDER / name) for name in library.SOURCES]
    subprocess.run([COMPILER, *library.FLAGS, "-fopenmp", *sources, "-o", kernels], check=True)
    subprocess.run(
        [COMPILER, "-O2", "-std=c++17", str(HERE / "serve.cpp"), "-ldl", "-o", serve], check=True
    )
    return [EMULATOR, "-L", SYSTEM, serve, kernels]


def test(kind: str) -> int:
    """Run the tests with kernels of this kind, in this process; pytest's exit status."""
    if kind != "neon":
        library.TUNED = ((TUNED[kind], "-fopenmp"),)
        return pytest.main(ARGUMENTS)
    with tempfile.TemporaryDirectory() as folder, kernels_of(build(Path(folder))):
        return pytest.main(ARGUMENTS)


def main() -> None:
    kinds = sys.argv[1:] or [*KINDS]
    if unknown := {*kinds} - {*KINDS}:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}. Choose among {', '.join(KINDS)}")
    if len(kinds) == 1:
        sys.exit(test(kinds[0]))
    failed = []
    for kind in kinds:
        print(f"-- {kind} --------------------", flush=True)
        # each in a process of its own, as kernels are loaded once
        if subprocess.run([sys.executable, __file__, kind]).returncode:
            failed.append(kind)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
