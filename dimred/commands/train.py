"""dimred train: a run, or a sweep of runs. Hydra reads the command line; its errors are said in our words."""
from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from dimred.commands import completion, help
from dimred.configs import conf
from dimred.errors import UserError, nearest
from dimred.overrides import require_one_way

if TYPE_CHECKING:
    from dimred.sweep import Command


def train(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(help.of_train(arguments), end="")
        return 0
    if shell := completion_asked(arguments):
        print(completion.script(shell))
        return 0
    require_one_way(argument for argument in arguments if argument[:1] != "-")
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from dimred import sweep

    sweep.command = sweep.Command()
    arguments.sort(key=lambda a: a[:1] == "~" or (a[:1] != "-" and "=" in a))     # argparse wants these in one piece
    os.environ["HYDRA_FULL_ERROR"] = "1"    # Hydra raises, and we say it in our words
    sys.argv = ["dimred train", *(f"method.{a}" if a.startswith("mask=") else a for a in arguments)]
    try:
        hydra.main(version_base="1.3", config_path=str(conf()), config_name="config")(sweep.job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(in_our_words(error)) from error
    except OSError as error:
        if not error.filename:      # no file's, but the reader of our output has seen enough
            raise
        raise UserError(f"{error.strerror}: {error.filename}. Choose another folder with outputs=...") from error
    except SystemExit as stop:      # argparse has said what is wrong with an option
        return int(stop.code or 0)
    return finish(sweep.command)


def finish(command: Command) -> int:
    """Print the table of a sweep; the exit status. UserError if the single run has failed."""
    if command.error:
        raise command.error
    if command.outcomes:
        from dimred.report.sweep_table import sweep_table
        print(f"\n{sweep_table(command.outcomes)}")
    return int(any(outcome["status"] != "done" for outcome in command.outcomes))


def completion_asked(arguments: list[str]) -> str:
    """The shell that Hydra's own way of installing completion asks for: -sc install=bash."""
    if not {"-sc", "--shell-completion"} & set(arguments):
        return ""
    asked = [each.removeprefix("install=") for each in arguments if each.startswith("install=")]
    if not asked:
        raise UserError("completion is installed by `dimred completion SHELL`. See dimred completion --help")
    return asked[0]


def in_our_words(error: Exception) -> str:
    """What was got, what is allowed, what to do, from what Hydra says about the command line."""
    text = str(error) or str(error.__cause__)
    options = getattr(error, "options", None)
    if options and (missing := re.search(r"Could not find '([^'/]+)/([^']*)'", text)):
        group, name = missing.groups()
        return f"unknown {group} {name!r}. {nearest(name, options)}"
    if key := re.search(r"Could not override '([^']+)'", text):
        group, _, name = key[1].rpartition(".")
        node = getattr(error.__cause__, "parent_node", None) or ()      # the group as it is composed
        allowed = sorted(str(k) for k in node if k not in ("_target_", "hydra"))
        return f"unknown key {key[1]}. {nearest(name, allowed)}" if node else \
            f"unknown key {key[1]}: {group} is a single value, there is nothing inside it"
    if several := re.search(r"Ambiguous value for argument '(.+)'", text):
        return (f"{several[1]} names several values. For a run with each, add -m: dimred train -m {several[1]}. "
                "A list is written in brackets, KEY=[A,B]")
    if re.search("Multiple values for|Could not append", text):
        return f"{text.split('. ')[0]}. Leave out the +, which is for keys that do not exist yet"
    if override := getattr(error, "override", None):
        return (f"cannot understand {override!r}. Write KEY=VALUE, and a list as KEY=[A,B]; quote what the shell would "
                "change")
    return f"{text.splitlines()[0]} (see dimred train --help)"
