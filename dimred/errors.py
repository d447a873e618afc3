"""Errors that teach: what was got, what is allowed, what to do about it."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Sequence
from typing import Any


class UserError(Exception):
    """Something the user can put right. Shown as its message alone, without a traceback."""


class OutOfMemory(UserError):
    """A run did not fit into memory beside what else was there."""


class RunIsBusy(UserError):
    """Another process computes this very run."""


class ProcessLost(UserError):
    """Another process of a run on several has ended: the run is interrupted, and has not failed."""


# what torch says where it raises a mere RuntimeError
NO_MEMORY = "allocate memory|enough memory|bad_alloc|CUDA error: out of memory|ALLOC_FAILED"
MANY = 24  # more names than anybody reads


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A hint naming what `name` may have meant: "Did you mean 'rigl'? Allowed: ..."."""
    allowed = sorted(allowed)
    short = [other for other in allowed if is_short_form(name, other)]
    close = short or difflib.get_close_matches(name, allowed, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
    if close and len(allowed) > MANY:
        return f"{hint}There are {len(allowed) - len(close)} others."
    return f"{hint}Allowed: {', '.join(allowed) or 'none'}."


def is_short_form(one: str, other: str) -> bool:
    """Whether one of two names is short for the other, as lr for learning_rate, or the same."""
    return one == other or one == initials(other) or other == initials(one)


def initials(name: str) -> str:
    """lr of learning_rate; of a single word, itself."""
    words = name.split("_")
    return "".join(word[:1] for word in words) if len(words) > 1 else name


def require(holds: bool, key: str, got: object, allowed: str) -> None:
    """UserError naming the key, what was got and what is allowed, unless `holds`."""
    if not holds:
        raise UserError(f"{key}={as_typed(got)} is not allowed. It must be {allowed}.")


def reason(error: Exception) -> str:
    """Why a file cannot be read. numpy advises to load pickles, which can run any code; dimred
    never does."""
    if "allow_pickle" in str(error):
        return "it contains other things than arrays of numbers"
    return f"{type(error).__name__}: {error}"


def first_line(error: Exception) -> str:
    """The first line of the message of another library's error, with the next one after a colon;
    the type if there is no message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def see(page: str) -> str:
    """The sentence of an error that names a page of docs/, or a heading of one by its anchor. A
    test finds every call and looks the page up."""
    return f"See docs/{page}"


def extra(package: str, name: str, what: str) -> Any:
    """The module of an optional package. UserError, which names the extra of dimred that installs
    it, where it is missing."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        missing = (error.name or package).partition(".")[0]
        raise UserError(
            f"{what} needs {missing}, which is not installed. Install it: "
            f"pip install 'dimred[{name}]'"
        ) from None


def as_typed(value: object) -> object:
    """A value as the command line writes it: null, not None."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else value


def counted(count: int, noun: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{count} {plural(noun, count)}"


def plural(noun: str, count: int) -> str:
    """The form of a noun for so many: run, runs; class, classes; entry, entries."""
    if count == 1:
        return noun
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def numbered(noun: str, numbers: Sequence[int]) -> str:
    """ "seed 3", "seeds 0, 1, 2"."""
    return f"{plural(noun, len(numbers))} {', '.join(map(str, numbers))}"


def listed(names: Iterable[str], most: int = 3, separator: str = ", ") -> str:
    """The first names, and how many more there are: "a, b, c and 4 more"."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def first_lines(lines: Sequence[str], most: int) -> list[str]:
    """The first lines, and one that counts the others."""
    if len(lines) <= most:
        return [*lines]
    return [*lines[:most], f"... and {len(lines) - most} more"]


class Interrupted(SystemExit):
    """A signal ended the run, which is logged where it is raised. A process that does not catch it
    ends with the exit status of a shell, 128 + signal, and without a traceback. Steps of training
    are saved up to `step`; without one, nothing since the last checkpoint is."""

    def __init__(self, signal: int, step: int | None = None) -> None:
        # all that pickle needs, between the processes of a sweep
        super().__init__(signal, step)
        self.signal, self.step, self.code = signal, step, 128 + signal

    def __str__(self) -> str:
        if self.step is None:
            return (
                f"stopped by signal {self.signal} outside of training. Repeat the command to "
                "resume from the last checkpoint, or from the start where there is none"
            )
        return (
            f"stopped by signal {self.signal} after step {self.step}. Repeat the command to resume "
            "from there; a requeued job does so itself"
        )
