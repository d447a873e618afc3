"""Several commands `dimred train KEY=VALUE ...`, computed side by side."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from dimred.errors import UserError
from dimred.runs.config.composition import composed_with_choices
from dimred.runs.packed.display import Display, level_of_screen
from dimred.runs.packed.pool import shared_pool, the_pool
from dimred.runs.packed.worker import Task, task_of
from dimred.training.sweep_label import Run, named_run

log = logging.getLogger(__name__)


def run_commands(commands: Sequence[Sequence[str]], at_once: int | None) -> bool:
    """Compute a run for each list of overrides, print a line for each; whether all are done. Runs
    that other commands compute come last."""
    tasks = [each for each in tasks_of_commands(commands) if each is not None]
    done = len(tasks) == len(commands)
    with shared_pool(), Display(len(tasks)) as display:
        for i, outcome in the_pool(at_once).outcomes(tasks, patient=True):
            display.show(tasks[i], outcome)
            done = done and outcome["status"] == "done"
    return done


def tasks_of_commands(commands: Sequence[Sequence[str]]) -> list[Task | None]:
    return [task(words, run) for words, run in zip(commands, named(commands), strict=True)]


def named(commands: Sequence[Sequence[str]]) -> Iterator[Run]:
    """ "run 3 of 8", and the overrides that not all of them have."""
    common = set.intersection(*map(set, commands)) if len(commands) > 1 else set()
    for i, words in enumerate(commands):
        own = [word for word in words if word not in common]
        yield Run(f"run {i + 1} of {len(commands)}", " ".join(own))


def task(words: Sequence[str], run: Run) -> Task | None:
    """None, and an error message, if no run can be composed of these overrides."""
    try:
        cfg, choices = composed_with_choices(words)
    except UserError as error:
        with named_run(*run):
            log.error("%s", error)
        return None
    return task_of(cfg, choices, words, ["dimred train", *words], run, level_of_screen())
