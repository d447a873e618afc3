"""A worker process as its parent sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Pipe
from typing import TYPE_CHECKING

from dimred.runs.packed.places import Place
from dimred.runs.packed.worker import Message, threads_of

if TYPE_CHECKING:
    from dimred.runs.packed.pool import Queued

SECONDS = 10  # for an idle worker to end


class Worker:
    """Computes one task after another on a place.

    queued: what it computes now
    ready: whether it has imported all that a run needs
    saved: whether a signal has ended its run
    interrupted: whether this process has sent that signal
    """

    def __init__(self, place: Place, share: int, environment: Mapping[str, str]) -> None:
        self.place = place
        self.queued: Queued | None = None
        self.ready = self.saved = self.interrupted = False
        self.connection, theirs = Pipe()
        threads = str(threads_of(share))
        settings = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **environment}
        on_gpu = place.visible is not None
        if on_gpu:
            settings["CUDA_VISIBLE_DEVICES"] = str(place.visible)
        # sys.path first: the working folder may hold a signal.py
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from dimred.runs.packed.worker import main; main({theirs.fileno()}, {on_gpu})"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | settings,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # results go through the connection; what user code prints is no result
            start_new_session=True,  # Ctrl-C reaches the parent alone, which tells its workers
        )
        theirs.close()

    def give(self, queued: Queued) -> None:
        """Let it compute a task. That it has died is noticed when its messages are read."""
        self.queued = queued
        with suppress(OSError):
            self.connection.send_bytes(queued.task.encoded())

    def receive(self) -> Message | None:
        """Its next message; None if it has died."""
        try:
            message: Message = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            return None
        return message

    def has_died(self) -> bool:
        """Also where a process that it has started holds the connection open."""
        return self.process.poll() is not None and not self.connection.poll()

    def interrupt(self) -> None:
        """Let it save the run that it computes, and end. A second signal would end it at once."""
        if not self.interrupted:
            self.interrupted = True
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()

    def end(self) -> None:
        """An idle worker ends when nobody is left who gives it tasks."""
        self.connection.close()
        if self.queued or not self.ready:
            self.interrupt()

    def wait(self) -> int:
        """The exit status, minus the number of the signal that ended it."""
        try:
            return self.process.wait(None if self.queued else SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.wait()

    def manner_of_death(self) -> str:
        """How it ended: "SIGKILL", "exit status 1"."""
        status = -signal.SIGTERM if self.saved else self.wait()
        if status >= 0:
            return f"exit status {status}"
        with suppress(ValueError):
            return signal.Signals(-status).name
        return f"signal {-status}"
