"""What Hydra calls: the job, once for every combination of a sweep, and what is left of the sweep
at its end."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dimred.errors import UserError
from dimred.runs.config.files import GROUPS, STORED, Choices, require_plain_names
from dimred.runs.config.objectives import (
    Value,
    objectives,
    require_directions,
    searches,
    value_of,
)
from dimred.runs.printing import summary
from dimred.runs.processes import require_one_process
from dimred.runs.signals import ending_with_parent, handing_on_signals
from dimred.runs.terminal import listen, printable
from dimred.training.sweep_label import Run, named_run

# of a run of a sweep: its overrides, and its result or the reason of its failure
Outcome = dict[str, Any]


@dataclass
class Command:
    """The command that this process was started by.

    runs: of its sweep; 0 where the sweeper decides as it goes
    keys: those that have several values
    """

    runs: int = 0
    keys: set[str] = field(default_factory=set)
    error: UserError | None = None
    outcomes: list[Outcome] = field(default_factory=list)


command: Command | None = None  # none in the workers of a launcher


def job(cfg: DictConfig) -> Value:
    """One run. An error of one does not stop a sweep; it is written to the sweep's folder, as a
    result is. Returns the objectives, for a sweeper that searches."""
    if command is not None:
        return compute(cfg)
    listen(logging.INFO)  # a worker has not been through the command line
    with ending_with_parent(), handing_on_signals():
        return compute(cfg)


def compute(cfg: DictConfig) -> Value:
    hydra, names = HydraConfig.get(), objectives(cfg.objective)
    overrides: Any = OmegaConf.to_container(hydra.overrides.task)  # as they were typed
    if hydra.mode != RunMode.MULTIRUN:
        outcome, error = run_one(cfg, overrides)
        if command:
            command.error = error
        return value_of(outcome, names, hydra.sweeper)
    require_directions(hydra.sweeper, names)
    with named_job(hydra.job.num + 1, overrides):
        outcome, _ = run_one(cfg, overrides)
    write_outcome(hydra.sweep.dir, hydra.job.num, outcome)
    return value_of(outcome, names, hydra.sweeper)


def run_one(cfg: DictConfig, overrides: list[str]) -> tuple[Outcome, UserError | None]:
    # here, so that mistakes in the command are answered before torch is imported
    from dimred.runs.failures import readable

    try:
        result = compute_run(cfg, choices_of(cfg), overrides)
    except Exception as exception:
        error = readable(exception)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            logging.getLogger("dimred").error("%s", error)
        return {"overrides": overrides, "status": "failed", "reason": str(error)}, error
    print(printable(summary(result)), flush=True)
    return {"overrides": overrides, **result}, None


def choices_of(cfg: DictConfig) -> Choices:
    """The names of the chosen files."""
    chosen: Any = HydraConfig.get().runtime.choices
    names = {group: chosen.get(group) for group in GROUPS if group in cfg}
    return {group: name and name.removeprefix(STORED) for group, name in names.items()}


def compute_run(
    cfg: DictConfig,
    choices: Choices,
    overrides: Sequence[str],
    command: Sequence[str] | None = None,
    only_finished: bool = False,
) -> Outcome:
    """The result of a run whose overrides are as they were typed. UserError as of `run`."""
    from dimred.runs.run import run

    require_plain_names(choices)
    explicit = {override.lstrip("+").partition("=")[0] for override in overrides}
    return run(cfg, choices, explicit, command, only_finished)


@contextmanager
def named_job(number: int, overrides: Sequence[str]) -> Iterator[None]:
    """Name the run of the sweep in log messages."""
    with named_run(*label(number, overrides)):
        yield


def label(number: int, overrides: Sequence[str]) -> Run:
    """ "run 3 of 8", and of its values those that are not the same in all runs."""
    runs = command.runs if command else 0
    keys = command.keys if command else set()
    values = [each for each in overrides if not keys or each.partition("=")[0] in keys]
    return Run(f"run {number} of {runs}" if runs else f"run {number}", " ".join(values))


def write_outcome(folder: str, number: int, outcome: Outcome) -> None:
    """Into the sweep's folder, for the table at its end."""
    from dimred.files import write

    write(Path(folder).expanduser() / f"{number}.json", json.dumps(outcome).encode())


@contextmanager
def ending_hydra() -> Iterator[None]:
    """Of a callback: end the process with `command.error` at a UserError. Hydra makes a warning of
    whatever exception its callbacks raise, but for SystemExit."""
    try:
        yield
    except UserError as error:
        if command is not None:
            command.error = error
        raise SystemExit(1) from error


def require_no_sweep(hydra: DictConfig) -> None:
    """UserError for a launcher, a sweeper or values of a sweep that a file of the configuration
    sets: without -m, Hydra would not use them."""
    for kind in ("launcher", "sweeper"):
        name = hydra.runtime.choices[f"hydra/{kind}"]
        if name != "basic":
            raise UserError(
                f"the configuration sets hydra/{kind}={name}, and a {kind} needs -m: without it, "
                "one run is trained here. Write dimred train -m ..., or add hydra/"
                f"{kind}=basic to train this run without it"
            )
    if params := hydra.sweeper.get("params"):
        raise UserError(
            f"the configuration sets hydra.sweeper.params ({', '.join(params)}), the values of a "
            "sweep, and a sweep needs -m. Write dimred train -m ..., or take them out of the file"
        )


class SweepTable(Callback):
    """Counts the runs of a sweep before they start, and collects their outcomes."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        with ending_hydra():
            objectives(config.objective)
            require_no_sweep(config.hydra)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        with ending_hydra():
            require_one_process("-m")
            require_directions(config.hydra.sweeper, objectives(config.objective))
        if command is None or searches(config.hydra.sweeper):
            return
        typed: Any = OmegaConf.to_container(config.hydra.overrides.task)
        listed = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
        several = [
            each
            for each in OverridesParser.create().parse_overrides([*listed, *typed])
            if each.is_sweep_override()
        ]
        command.runs = math.prod(len(list(each.sweep_string_iterator())) for each in several)
        command.keys = {each.key_or_group for each in several}

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        files = Path(config.hydra.sweep.dir).expanduser().glob("*.json")
        if command is not None:
            command.outcomes = [
                json.loads(path.read_text())
                for path in sorted(files, key=lambda path: int(path.stem))
            ]
