"""Signals that end a run: SIGINT (Ctrl-C), SIGTERM, and SIGUSR1 and SIGUSR2, by which schedulers
announce that a job is preempted or out of time; and for a worker of a sweep the end of its
parent."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dimred.errors import Interrupted
from dimred.runs.terminal import say_now
from dimred.training.stop import Stop

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Signals:
    """The signals that came, in their order."""

    def __init__(self) -> None:
        self.came: list[int] = []

    @property
    def at_once(self) -> bool:
        """Whether the user has lost patience. Schedulers send several signals, one after another,
        and SIGKILL at last."""
        return signal.SIGINT in self.came[1:]

    def note(self, number: int, frame: object) -> None:
        self.came.append(number)
        if len(self.came) == 1:
            say_now(f"{signal.Signals(number).name}: saving all runs.{more(number)}")


@contextmanager
def noting_signals() -> Iterator[Signals]:
    """Signals that come in the block are noted and nothing else; the block looks for them."""
    signals = Signals()
    with handling(signals.note):
        yield signals


@contextmanager
def ignoring_signals() -> Iterator[None]:
    """For a block that takes seconds and has to come to its end."""
    with handling(lambda number, frame: None):
        yield


@contextmanager
def stopping_at_signals(request: Stop) -> Iterator[None]:
    """At the first signal a step in progress is finished and saved before Interrupted is raised.
    Outside of steps, where nothing could be saved, it is raised at once. Then Ctrl-C ends the
    process at once; other signals, of which schedulers send several, are ignored."""

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if request.signal:
            return
        request.signal = number
        if not request.in_steps:
            raise Interrupted(number)
        say_now(f"{signal.Signals(number).name}: stopping after this step.{more(number)}")

    with handling(stop):
        yield


def more(number: int) -> str:
    return " Once more: at once" if number == signal.SIGINT else ""


@contextmanager
def handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Handle signals in the block. In other threads than the main one, they are left to the calling
    program."""
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before |= {each: signal.signal(each, handler) for each in HANDLED}
    try:
        yield
    finally:
        for each, earlier in before.items():
            signal.signal(each, earlier)


@contextmanager
def handing_on_signals() -> Iterator[None]:
    """The signal that stopped the block goes to the handler that this process has for it outside:
    that of submitit requeues its job."""
    try:
        yield
    except Interrupted as stop:
        handler = signal.getsignal(stop.signal)
        if callable(handler) and handler is not signal.default_int_handler:
            handler(stop.signal, None)
        raise


@contextmanager
def ending_with_parent() -> Iterator[None]:
    """When the parent of this process ends, the block is stopped as by SIGTERM, and the process
    ends, too: a sweep leaves no workers behind, however it is killed."""
    parent, over = os.getppid(), threading.Event()

    def watch() -> None:
        while not over.wait(1):
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=watch, name="ending with parent", daemon=True).start()
    try:
        yield
    except Interrupted as stop:
        if os.getppid() != parent:  # no process is left to report it to
            os._exit(128 + stop.signal)
        raise
    finally:
        over.set()
