"""What is printed while a command runs: log messages on stderr, named after their run where there
are several."""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

from dimred.training import sweep_label
from dimred.training.sweep_label import PROGRESS, current_run

WIDTH = 80  # of lines where there is no terminal
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Lines(logging.Formatter):
    """dimred: run 3 of 27 (method=rigl seed=1): message. What is no warning has the number of the
    run alone."""

    def format(self, record: logging.LogRecord) -> str:
        message = printable(super().format(record))
        run = current_run()
        if run is None:
            return f"dimred: {message}"
        label, values = run
        about = f"{label} ({printable(values)})" if record.levelno >= logging.WARNING else label
        return f"dimred: {about}: {message}"


class Screen(logging.StreamHandler):
    """Writes to stderr, above the progress bars that are there."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm = sys.modules.get("tqdm")  # without it there is no bar
        with tqdm.tqdm.external_write_mode(self.stream) if tqdm else nullcontext():
            super().emit(record)


def listen(level: int) -> None:
    """Print what dimred logs to stderr; progress only where no bar shows it."""
    logger = logging.getLogger("dimred")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.handlers[:] = [handler := Screen()]
    handler.setLevel(level)
    handler.setFormatter(Lines())
    if sys.stderr.isatty():
        handler.addFilter(lambda record: record.name != PROGRESS)
    # The command that cannot write reports a full disk; a log file that cannot be written adds
    # nothing.
    logging.raiseExceptions = level == logging.DEBUG


class Passing(logging.Handler):
    """Hands a record to the handlers that a logger has, if it has the level that the logger had."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger.getEffectiveLevel())
        self.before = logging.Logger(logger.name)
        self.before.handlers = logger.handlers
        self.before.parent, self.before.propagate = logger.parent, logger.propagate

    def emit(self, record: logging.LogRecord) -> None:
        self.before.callHandlers(record)


@contextmanager
def showing_what_is_asked_for() -> Iterator[None]:
    """A run's log.txt has every message of this block; the program that calls sees those that it
    has asked for by logging.getLogger("dimred").setLevel, by default warnings and errors."""
    logger = logging.getLogger("dimred")
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [Passing(logger)], False
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before[0], before[2]
        logger.setLevel(before[1])


def be_silent() -> None:
    """Print nothing: another process of this run does. Errors are raised all the same."""
    logging.getLogger("dimred").handlers[:] = [logging.NullHandler()]
    sweep_label.own_screen = False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_now(message: str) -> None:
    """Write to stderr from a signal handler, where buffered streams must not be used."""
    if not sweep_label.own_screen:  # the process that started this one says it for all
        return
    start = "\n" if sys.stderr.isatty() else ""
    with suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), f"{start}dimred: {message}\n".encode("ascii", "replace"))


def width() -> int:
    """Columns to print in: those of the terminal, 80 where there is none."""
    return shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH


def printable(text: str) -> str:
    r"""The text without control characters, which could write anywhere on a terminal: an escape is
    shown as \x1b."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def accept_any_text() -> None:
    """Characters that stdout and stderr cannot encode are written as escapes, never an error."""
    for stream in (sys.stdout, sys.stderr):
        # what replaces them in tests and notebooks takes any text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
