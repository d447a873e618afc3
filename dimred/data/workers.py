"""Processes that read images for a run, and the signals that end the run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

#: those that a run saves itself at (runs/signals.py)
SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}


@contextmanager
def spared_from_signals() -> Iterator[None]:
    """Processes that are started in the block never get these signals. A terminal or torchrun sends
    them to all processes of a session, and the run, which saves its state at the end of a step,
    needs its workers until then. They end with it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:  # this process gets now what has come in between
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
