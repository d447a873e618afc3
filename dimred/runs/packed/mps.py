"""NVIDIA's MPS, which lets the kernels of several processes run on a GPU at the same time. Without
it, processes take turns."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

CONTROL = "nvidia-cuda-mps-control"
SECONDS = 20  # for an answer of the control program
EXCLUSIVE = "Exclusive"  # of nvidia-smi's compute mode Exclusive_Process

log = logging.getLogger(__name__)


class MPS:
    """The MPS of one sweep, with folders of its own, so that nothing of the machine is changed.

    running: whether there is one, this or one of the machine
    environment: what workers need to find it; empty for one of the machine
    """

    def __init__(self) -> None:
        self.running = False
        self.environment: dict[str, str] = {}
        self._folder: Path | None = None

    def start(self) -> None:
        """Start MPS unless it is running; one line says why where that cannot be."""
        if not shutil.which(CONTROL):
            log.warning("no NVIDIA MPS (%s is not installed): runs on a GPU take turns", CONTROL)
            return
        self.running = not ask("get_server_list", os.environ)  # one of the machine
        if self.running:
            return
        self._folder = Path(tempfile.mkdtemp(prefix="dimred-mps-"))
        self.environment = {
            "CUDA_MPS_PIPE_DIRECTORY": str(self._folder / "pipe"),
            "CUDA_MPS_LOG_DIRECTORY": str(self._folder / "log"),
        }
        for folder in self.environment.values():
            Path(folder).mkdir()
        # with CUDA_VISIBLE_DEVICES, MPS would number the GPUs anew
        environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        failure = executed([CONTROL, "-d"], environment | self.environment)
        # a daemon that cannot make its socket ends without a word
        failure = failure or unanswered("get_server_list", environment | self.environment)
        self.running = not failure
        if failure:
            self.give_up(failure)

    def give_up(self, reason: str) -> None:
        """Go on without MPS, and say why."""
        self.stop()
        log.warning("NVIDIA MPS cannot be used (%s): runs on a GPU take turns", reason)

    def stop(self) -> None:
        """End what `start` has started, once its processes have ended."""
        if self._folder is None:
            return
        if failure := ask("quit", os.environ | self.environment):
            log.debug("MPS did not end by itself: %s", failure)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder, self.environment, self.running = None, {}, False


def ask(request: str, environment: Mapping[str, str]) -> str:
    """Send a request to the control program; what went wrong, or nothing."""
    return executed([CONTROL], environment, f"{request}\n")


def unanswered(request: str, environment: Mapping[str, str]) -> str:
    """Ask until there is an answer, for a second; what went wrong, or nothing."""
    for _ in range(5):
        if not (failure := ask(request, environment)):
            return ""
        time.sleep(0.2)
    return failure


def executed(command: list[str], environment: Mapping[str, str], given: str = "") -> str:
    """Execute a command; what went wrong, or nothing."""
    # a file, because a daemon may hold a pipe open; a session, so that Ctrl-C does not end it
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        try:
            done = subprocess.run(
                command,
                env=environment,
                input=given,
                stdout=output,
                stderr=output,
                text=True,
                timeout=SECONDS,
                start_new_session=True,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        output.seek(0)
        lines = output.read().strip().splitlines()
    return (lines or [f"exit status {done.returncode}"])[0] if done.returncode else ""


def exclusive(visible: str) -> bool:
    """Whether a GPU takes one process at a time, unless that is MPS's."""
    command = ["nvidia-smi", "-i", visible, "--query-gpu=compute_mode", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.startswith(EXCLUSIVE)
