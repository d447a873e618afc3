"""`dimred` as a process of its own, forked from one that has imported torch already."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

# in tests and in their commands: it guards against a loss of power, which no test causes, and takes
# 5 ms, for thousands of small files
os.fsync = lambda file: None

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    [
        "pytest",
        "dimred.runs.run",
        "dimred.runs.sweep",
        "dimred.methods",
        "dimred.models",
        "dimred.data",
        "tests.warm",
    ]
)


class Outcome(NamedTuple):
    code: int  # exit status; minus the signal that ended it
    out: str
    err: str


class Command:
    """`dimred ARGUMENTS` in a process: alive until `wait`ed for or killed."""

    def __init__(
        self, arguments: tuple[str, ...], folder: Path, before: Callable[[], None] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files = folder / "stdout", folder / "stderr"
        self.process: BaseProcess = processes.Process(
            target=_main, args=([*map(str, arguments)], *map(str, self._files), before)
        )
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid
        return self.process.pid

    def wait(self, seconds: float = 100) -> Outcome:
        self.process.join(seconds)
        assert self.process.exitcode is not None, (
            f"still running after {seconds} s: {self._files[1].read_text()}"
        )
        return Outcome(self.process.exitcode, *(path.read_text() for path in self._files))


def _main(arguments: list[str], out: str, err: str, before: Callable[[], None] | None) -> None:
    gc.freeze()  # what was there before the fork: to look through it again takes 0.1 s
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    if before:
        before()
    from dimred.cli.main import main

    sys.exit(main(arguments))
