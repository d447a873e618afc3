"""dimred train: one run, or a sweep of runs. Hydra reads KEY=VALUE and its own options."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dimred.cli import completion, help
from dimred.cli.commands import Parser, add_config_dir, local_folder
from dimred.errors import Interrupted, UserError
from dimred.runs.config.composition import explaining, own_folder
from dimred.runs.config.files import conf
from dimred.runs.config.overrides import require_one_way
from dimred.runs.config.rerun import register

if TYPE_CHECKING:
    from dimred.runs.sweep import Command

#: options of Hydra that pass through, beside those that `parser` declares
OF_HYDRA = (
    *("--hydra-help", "--version", "--resolve", "--package", "-p", "--run", "-r", "-c", "--info"),
    *("-i", "--config-name", "-cn", "--config-path", "-cp", "--shell-completion", "-sc"),
    "--experimental-rerun",
)

#: options of a command that trains no run, or many
SHOWS_OR_SWEEPS = {"-m", "--multirun", "--cfg", "-c", "--info", "-i"}


def parser() -> Parser:
    parser = Parser(
        "train",
        "[KEY=VALUE ...]",
        "-m KEY=V1,V2 ...",
        "--from RUN [KEY=VALUE ...]",
        summary="Train one network, or with -m one for every combination of the values. Finished "
        "runs are skipped, interrupted ones are resumed.",
    )
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="see below")
    parser.add_argument("-m", "--multirun", action="store_true", help="run a sweep")
    parser.add_argument(
        "--cfg", choices=("job", "hydra", "all"), help="print the configuration, train nothing"
    )
    add_own(parser)
    return parser


def add_own(parser: Parser) -> None:
    """The options that Hydra does not see."""
    parser.add_argument(
        "--from", metavar="RUN", type=local_folder, help="start from the configuration of a run"
    )
    add_config_dir(parser)


def run(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(f"{parser().format_help()}\n{help.overrides(arguments)}")
        return 0
    if shell := completion_asked(arguments):
        print(completion.script(shell))
        return 0
    own = Parser("train", "[KEY=VALUE ...]", summary="")
    add_own(own)
    short = {"-cd": "--config-dir"}
    given, passed = own.parse_known_args(short.get(each, each) for each in arguments)
    folder = own_folder(given.config_dir) if given.config_dir else None
    if folder:
        passed.append(f"--config-dir={folder}")
    require_options(passed)
    require_one_way(argument for argument in passed if argument[:1] != "-")
    require_sweep(passed)
    run: Path | None = getattr(given, "from")
    start = register(run, folder) if run is not None else "config"
    return run_hydra(passed, start)


def run_hydra(arguments: list[str], config_name: str) -> int:
    """Let Hydra compose the configurations and start the runs."""
    import hydra

    from dimred.runs import sweep
    from dimred.runs.packed.pool import shared_pool

    sweep.command = sweep.Command()
    # Hydra's argparse wants the overrides in one piece
    arguments = sorted(arguments, key=is_override)
    arguments = [re.sub("^mask=", "method.mask=", argument) for argument in arguments]
    sys.argv = ["dimred train", *arguments]
    # Hydra raises its errors; `explaining` translates them
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with explaining(), shared_pool():
            hydra.main(version_base="1.3", config_path=str(conf()), config_name=config_name)(
                sweep.job
            )()
    except OSError as error:
        if not error.filename:  # not of a file: stdout was closed
            raise
        raise UserError(
            f"{error.strerror}: {error.filename}. Choose another folder with outputs=..."
        ) from error
    except Interrupted:
        raise
    except SystemExit as stop:
        if sweep.command.error:
            raise sweep.command.error from None
        # Hydra's argparse has printed what is wrong
        return int(stop.code or 0)
    return finish(sweep.command)


def is_override(argument: str) -> bool:
    return argument[:1] == "~" or (argument[:1] != "-" and "=" in argument)


def require_options(arguments: list[str]) -> None:
    """UserError for unknown options, for options of Hydra that would leave dimred's configuration
    out, and for options that exclude each other."""
    long = [argument for argument in arguments if argument.startswith("--")]
    parser().require_known(long, OF_HYDRA)
    given = {argument.partition("=")[0] for argument in arguments if argument.startswith("-")}
    if given & {"--config-path", "-cp"}:
        raise UserError(
            "--config-path would replace dimred's own configuration. Add your files with "
            "--config-dir DIR; repeat a run with dimred train --from RUN"
        )
    if given & {"-m", "--multirun"} and given & {"--cfg", "-c"}:
        raise UserError(
            "--cfg shows the configuration of one run. Leave out -m, and give each key one value"
        )
    if given & {"--info", "-i"} and given & {"-m", "--multirun", "--cfg", "-c"}:
        raise UserError("--info cannot be combined with -m or --cfg. Leave them out")


def require_sweep(arguments: Sequence[str]) -> None:
    """UserError for a setting of a sweep (its launcher, sweeper or folder) in a command that trains
    one run: Hydra would not use it."""
    given = {argument.partition("=")[0] for argument in arguments}
    if given & SHOWS_OR_SWEEPS or "hydra.mode=MULTIRUN" in arguments:
        return
    for argument in arguments:
        if found := re.match(r"\+*hydra[./](launcher|sweeper|sweep)\b(?!=basic$)", argument):
            raise UserError(
                f"a {found[1]} needs -m: without it, one run is trained here and {argument} is "
                f"not used. Write dimred train -m {argument} ..., or leave it out"
            )


def finish(command: Command) -> int:
    """Print the table of a sweep and return the exit status. UserError if the only run failed."""
    if command.error:
        raise command.error
    if command.outcomes:
        from dimred.report.tables.sweep import sweep_table

        print(f"\n{sweep_table(command.outcomes)}")
    return int(any(outcome["status"] != "done" for outcome in command.outcomes))


def completion_asked(arguments: list[str]) -> str:
    """The shell named by Hydra's way to install completion: -sc install=bash."""
    if not {"-sc", "--shell-completion"} & set(arguments):
        return ""
    shells = [each.removeprefix("install=") for each in arguments if each.startswith("install=")]
    if not shells:
        raise UserError(
            "`dimred completion SHELL` installs completion. See dimred completion --help"
        )
    return shells[0]
