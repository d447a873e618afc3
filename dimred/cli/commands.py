"""The commands of dimred, and the parser that each of them declares its arguments with."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from dimred.errors import UserError, nearest
from dimred.files import is_url

#: in the order of `dimred --help`; the file of each has its name
COMMANDS = (
    *("train", "methods", "check", "runs", "status", "show", "export", "import"),
    *("mask", "compare", "table", "reproduce", "plot", "data", "completion"),
)
FILES = {"import": "importing"}  # `import` is a keyword of Python


class Command(Protocol):
    """What the file of a command defines. Importing it must be fast: no torch, no numpy."""

    def parser(self) -> Parser: ...

    def run(self, arguments: list[str]) -> int:
        """Run the command; return the exit status."""


def find(name: str) -> Command:
    """The file of a command. UserError with the nearest names if there is none."""
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}. {nearest(name, COMMANDS)} See dimred --help")
    module: Any = importlib.import_module(f"dimred.cli.{FILES.get(name, name)}")
    return module


class Parser(argparse.ArgumentParser):
    """An ArgumentParser with dimred's errors: a UserError in one line, with the nearest option.

    Completion reads the metavar of an argument as the kind of its values: RUN, DIR, FILE, METHOD,
    TABLE, PICTURE, KEY=VALUE, FIELD=VALUE.
    """

    def __init__(self, name: str, *forms: str, summary: str, more: str = "") -> None:
        """`forms`: what may follow the name, one for each way to use the command."""
        self.summary = summary
        super().__init__(
            prog=f"dimred {name}",
            usage="\n       ".join(f"dimred {name} {form}" for form in forms),
            description=summary,
            epilog=more,
            allow_abbrev=False,
            add_help=False,
        )
        self.add_argument("-h", "--help", action="help", help="show this help")
        # main takes it off the arguments of every command
        self.add_argument("--debug", action="store_true", help="show where an error happened")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse options and positional arguments in any order."""
        self.require_known(arguments)
        found, left = self.parse_known_intermixed_args(arguments)
        if left:
            self.error(f"unexpected argument {left[0]}")
        return found

    def require_known(self, arguments: Iterable[str], others: Iterable[str] = ()) -> None:
        """UserError for the first option that is neither declared nor one of the others."""
        allowed = {*self._option_string_actions, *others}
        for argument in arguments:
            option = argument.partition("=")[0]
            if re.fullmatch(r"-\d.*", option):  # a value: a negative number
                continue
            if option.startswith("-") and option not in allowed:
                shown = {*self.options(), *others}
                hint = nearest(option, [name for name in shown if name.startswith("--")])
                raise UserError(f"unknown option {option}. {hint}")

    def error(self, message: str) -> NoReturn:
        if found := re.match(r"argument (\S+): expected (?:at least )?one argument", message):
            option = self.options()[found[1].rpartition("/")[2]]
            value = option.metavar or "|".join(option.choices or ())
            raise UserError(f"{found[1]} needs a value: {found[1]} {value}")
        usage = " or ".join(line.strip() for line in str(self.usage).splitlines())
        raise UserError(f"usage: {usage} ({message}). See {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """The hook of argparse for `choices`."""
        if action.choices is not None and value not in action.choices:
            hint = nearest(str(value), map(str, action.choices))
            raise UserError(f"unknown {action.dest} {value!r}. {hint}")

    # -- for completion --------------------
    def options(self) -> Mapping[str, argparse.Action]:
        """The options by name, without those that help does not show."""
        every = self._option_string_actions
        return {name: every[name] for name in every if every[name].help != argparse.SUPPRESS}

    def positionals(self) -> list[argparse.Action]:
        return self._get_positional_actions()


# -- arguments that several commands take --------------------
def add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_config_dir(parser: Parser) -> None:
    parser.add_argument(
        "--config-dir",
        metavar="DIR",
        help="a folder with your own configurations, in method/, model/, ...",
    )


def add_trust(parser: Parser) -> None:
    parser.add_argument(
        "--trust", action="store_true", help="run the code of a model that is not part of dimred"
    )


def local_folder(name: str) -> Path:
    """The type of an argument that names a folder of this machine. UserError for a URL."""
    if is_url(name):
        raise UserError(
            f"{name} is a URL, which table, runs and plot can read; this command reads folders "
            "alone. Name a folder, or copy the runs into one"
        )
    return Path(name).expanduser()


def existing_folder(name: str) -> Path:
    """The type of an argument that names a run."""
    folder = local_folder(name)
    if not folder.is_dir():
        raise UserError(f"no folder {folder}. Runs are in outputs/runs/DATASET/MODEL/")
    return folder
