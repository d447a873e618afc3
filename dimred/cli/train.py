"""dimred train: a run, or a sweep of runs. Hydra reads the command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dimred.cli import completion, help
from dimred.cli.arguments import option
from dimred.errors import UserError
from dimred.runs.config.composition import explained, own_folder
from dimred.runs.config.files import conf
from dimred.runs.config.overrides import require_one_way
from dimred.runs.config.rerun import register

if TYPE_CHECKING:
    from dimred.runs.sweep import Command


def train(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(help.of_train(arguments), end="")
        return 0
    if shell := completion_asked(arguments):
        print(completion.script(shell))
        return 0
    arguments = [*arguments]
    run, own = option(arguments, "--from", "RUN"), own_configurations(arguments)
    if own:
        arguments.append(f"--config-dir={own}")
    require_options(arguments)
    require_one_way(argument for argument in arguments if argument[:1] != "-")
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from dimred.runs import sweep

    sweep.command = sweep.Command()
    start = register(Path(run).expanduser(), own) if run is not None else "config"
    arguments.sort(
        key=lambda a: a[:1] == "~" or (a[:1] != "-" and "=" in a)
    )  # argparse wants these in one piece
    # Hydra raises its errors; `explained` turns them into ours
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["dimred train", *(f"method.{a}" if a.startswith("mask=") else a for a in arguments)]
    try:
        hydra.main(version_base="1.3", config_path=str(conf()), config_name=start)(sweep.job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explained(error)) from error
    except OSError as error:
        if not error.filename:  # no file's, but the reader of our output has seen enough
            raise
        raise UserError(
            f"{error.strerror}: {error.filename}. Choose another folder with outputs=..."
        ) from error
    except SystemExit as stop:  # argparse has said what is wrong with an option
        return int(stop.code or 0)
    return finish(sweep.command)


def own_configurations(arguments: list[str]) -> Path | None:
    """Take --config-dir off the arguments; its folder."""
    given = option(arguments, "--config-dir") or option(arguments, "-cd")
    return own_folder(given) if given else None


def require_options(arguments: list[str]) -> None:
    """UserError for options of Hydra that would leave dimred's configuration out, or do not go
    together."""
    given = {argument.partition("=")[0] for argument in arguments if argument.startswith("-")}
    if given & {"--config-path", "-cp"}:
        raise UserError(
            "--config-path would replace dimred's own configuration. Add files of yours with "
            "--config-dir DIR; run a run again with dimred train --from RUN"
        )
    if given & {"-m", "--multirun"} and given & {"--cfg", "-c"}:
        raise UserError(
            "--cfg shows the configuration of one run. Leave out -m, and give each key one value"
        )
    if given & {"--info", "-i"} and given & {"-m", "--multirun", "--cfg", "-c"}:
        raise UserError("--info goes with neither -m nor --cfg. Leave them out")


def finish(command: Command) -> int:
    """Print the table of a sweep; the exit status. UserError if the single run has failed."""
    if command.error:
        raise command.error
    if command.outcomes:
        from dimred.report.tables.sweep import sweep_table

        print(f"\n{sweep_table(command.outcomes)}")
    return int(any(outcome["status"] != "done" for outcome in command.outcomes))


def completion_asked(arguments: list[str]) -> str:
    """The shell that Hydra's own way of installing completion asks for: -sc install=bash."""
    if not {"-sc", "--shell-completion"} & set(arguments):
        return ""
    asked = [each.removeprefix("install=") for each in arguments if each.startswith("install=")]
    if not asked:
        raise UserError(
            "completion is installed by `dimred completion SHELL`. See dimred completion --help"
        )
    return asked[0]
