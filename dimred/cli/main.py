"""The command line. Only commands that compute import torch; all others answer at once."""

from __future__ import annotations

import errno
import logging
import os
import sys

from dimred.cli import help
from dimred.cli.commands import find
from dimred.errors import UserError
from dimred.runs.environment import prepare_process, rank
from dimred.runs.processes import explained_by_rank, tell_torchrun
from dimred.runs.terminal import accept_any_text, be_silent, listen, printable

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
HELP = ("-h", "--help", "help")


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status. An error is one message on stderr; with --debug it
    is a traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    accept_any_text()
    listen(logging.DEBUG if debug else logging.INFO)
    if rank():
        be_silent()
    prepare_process()
    try:
        require_working_folder()
        status = dispatch(arguments)
        sys.stdout.flush()  # here, where a full disk can still be reported
        return status
    except SystemExit as stop:  # argparse has printed help, or a signal's message is logged
        return int(stop.code or 0)
    except BrokenPipeError:  # the reader (head, less) has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return failed("stopped. Repeat the command to resume or start again", 130)
    except Exception as error:
        if debug:
            raise
        return failed(message(error), 1)


def failed(text: str, status: int) -> int:
    text = printable(explained_by_rank(text))
    print(f"dimred: {text}", file=sys.stderr)
    tell_torchrun(text)
    return status


def message(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return (
            f"{error.strerror}: nothing more can be written. Free some space and repeat the "
            "command: what was written before is intact"
        )
    return (
        f"unexpected {type(error).__name__}: {error}. Repeat the command with --debug to see "
        "where it happened"
    )


def require_working_folder() -> None:
    try:
        os.getcwd()
    except OSError:
        raise UserError(
            "the working folder no longer exists. Change to one that does: cd FOLDER"
        ) from None


def dispatch(arguments: list[str]) -> int:
    """`dimred help COMMAND` is `dimred COMMAND --help`."""
    name, *rest = arguments or ["--help"]
    if name in HELP and not rest:
        print(help.overview(), end="")
        return 0
    if name in HELP:
        name, *rest = *rest, "--help"
    if name == "--version":
        from importlib.metadata import version

        print(version("dimred"))
        return 0
    return find(name).run(rest)
