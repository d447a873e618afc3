"""What the commands take off their arguments."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dimred.errors import UserError, nearest


def flag(arguments: list[str], name: str) -> bool:
    """Take a flag off the arguments; was it there?"""
    return name in flags(arguments, name)


def flags(arguments: list[str], *names: str, options: Iterable[str] = ()) -> set[str]:
    """Take flags off the arguments; those that were there. UserError if there are others; `options`
    could have been."""
    given = set(names) & set(arguments)
    arguments[:] = [a for a in arguments if a not in given]
    if unknown := [a for a in arguments if a.startswith("-")]:
        raise UserError(
            f"unknown option {unknown[0]}. {nearest(unknown[0], {*names, *options, '--debug'})}"
        )
    return given


def option(arguments: list[str], name: str, value_is: str = "DIR") -> str | None:
    """Take an option and its value off the arguments; the value, None if it was not there."""
    given = [i for i, argument in enumerate(arguments) if argument.partition("=")[0] == name]
    for i in given[:1]:
        joined = "=" in arguments[i]
        if not joined and i + 1 == len(arguments):
            raise UserError(f"{name} needs a value: {name} {value_is}")
        value = arguments[i].partition("=")[2] if joined else arguments[i + 1]
        del arguments[i : i + (1 if joined else 2)]
        return value
    return None


def one_folder(arguments: list[str], usage: str) -> Path:
    if len(arguments) != 1:
        raise UserError(f"usage: {usage} (got {len(arguments)} folders)")
    folder = Path(arguments[0]).expanduser()
    if not folder.is_dir():
        raise UserError(f"no folder {folder}. Runs lie in outputs/runs/DATASET/MODEL/")
    return folder
