"""The command line. Only commands that compute import torch: everything else answers at once."""

from __future__ import annotations

import errno
import logging
import os
import pkgutil
import sys

from dimred.cli import help
from dimred.cli.declared import find
from dimred.errors import Interrupted, UserError
from dimred.runs.environment import prepare_process
from dimred.runs.terminal import accept_any_text, listen, printable

FULL = (errno.ENOSPC, errno.EDQUOT)
HELP = ("-h", "--help", "help")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit status. Errors are one message, without a traceback unless --debug is
    given."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    accept_any_text()
    listen(logging.DEBUG if debug else logging.INFO)
    prepare_process()
    try:
        require_working_folder()
        status = dispatch(arguments)
        sys.stdout.flush()  # here, where a full disk can be reported
        return status
    except UserError as error:
        if debug:
            raise
        print(f"dimred: {printable(str(error))}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(f"dimred: {stop}", file=sys.stderr)
        return 128 + stop.signal
    except KeyboardInterrupt:
        print("dimred: stopped. Repeat the command to resume or start again", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in FULL:
            print(
                f"dimred: {error.strerror}: nothing more can be written. Make room and repeat the "
                "command: what was written before is intact",
                file=sys.stderr,
            )
            return 1
        print(
            f"dimred: unexpected {type(error).__name__}: {printable(str(error))}. Repeat with "
            "--debug to see where",
            file=sys.stderr,
        )
        return 1


def require_working_folder() -> None:
    try:
        os.getcwd()
    except OSError:
        raise UserError(
            "the working folder does not exist any more. Change to one that does: cd FOLDER"
        ) from None


def dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in HELP:
        if not arguments[1:]:
            print(help.overview(), end="")
            return 0
        arguments = [*arguments[1:], "--help"]
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(version("dimred"))
        return 0
    name, rest = arguments[0], arguments[1:]
    command = find(name)
    if name != "train" and {"-h", "--help"} & set(rest):  # that of train knows the overrides
        print(help.of_command(name), end="")
        return 0
    return pkgutil.resolve_name(command.target)(rest)
