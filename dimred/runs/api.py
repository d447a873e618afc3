"""Runs from Python: the same folders, digests and resuming as `dimred train`."""

from __future__ import annotations

import itertools
import logging
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dimred.errors import Interrupted, UserError, require
from dimred.runs.config.composition import composed_with_choices, own_folder
from dimred.runs.config.files import require_plain_names
from dimred.runs.config.overrides import flat, from_values, plain, require_one_way
from dimred.runs.environment import prepare_process
from dimred.runs.finished import Result
from dimred.runs.signals import handing_on_signals
from dimred.runs.terminal import showing_what_is_asked_for
from dimred.training.sweep_label import Run, named_run

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)
AnyPath = str | PathLike[str]


def train(
    method: str,
    *,
    sparsity: float | None = None,
    dataset: str | None = None,
    model: str | None = None,
    seed: int | None = None,
    config_dir: AnyPath | None = None,
    **overrides: Any,
) -> Result:
    """Train one run, or what is left of it, or nothing if it is finished; its result.

        dimred.train("rigl", sparsity=0.95, dataset="mnist", model="lenet5",
                     recipe={"epochs": 2}, **{"method.update_every": 100})

    This is `dimred train method=rigl sparsity=0.95 ...`: what is not given has the command line's
    default, and the run has the same folder. UserError for what is unknown or not allowed, or if
    the run fails.

    config_dir: your own configurations, in folders method/, model/, ...
    overrides: any other key of the configuration, also nested; None is null"""
    values = given(method=method, sparsity=sparsity, dataset=dataset, model=model, seed=seed)
    prepare_process()
    return computed(planned({**values, **overrides}, config_dir))


def sweep(
    method: str | Sequence[str],
    *,
    sparsity: float | Sequence[float] | None = None,
    dataset: str | Sequence[str] | None = None,
    model: str | Sequence[str] | None = None,
    seed: int | Sequence[int] | None = None,
    config_dir: AnyPath | None = None,
    jobs: int | Literal["auto"] = 1,
    **overrides: Any,
) -> list[Result]:
    """Train a run for every combination of the values that are lists; their results, in order.

        dimred.sweep(["snip", "rigl"], sparsity=[0.9, 0.95], seed=range(3))

    All is as in `train`, and `dimred train -m` finds the same runs. A value that is a list itself
    is written as a tuple: recipe={"milestones": (0.5, 0.75)}. Unknown names are errors before the
    first run. A run that fails does not stop the others: the `status` of its result is "failed",
    and `reason` says why.

    jobs: runs side by side on every GPU, or on the CPU, each in a process of its own; "auto": as
    many as fit"""
    values = given(method=method, sparsity=sparsity, dataset=dataset, model=model, seed=seed)
    prepare_process()
    plans = [planned(each, config_dir) for each in combinations({**values, **overrides})]
    if jobs != 1:
        return side_by_side(plans, jobs)
    results = []
    for i, plan in enumerate(plans):
        with named_run(*label(i, plans)):
            results.append(computed_or_failed(plan))
    return results


def given(**values: Any) -> dict[str, Any]:
    """Without what is left to its default."""
    return {key: value for key, value in values.items() if value is not None}


def combinations(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One mapping for every combination of the values that are lists (ranges, arrays), also of
    nested ones; the last varies fastest."""
    flattened = {key: plain(value) for key, value in flat(values)}
    choices: list[Sequence[Any]] = []
    for each in flattened.values():
        choices.append(each if isinstance(each, (list, range)) else [each])
    for chosen in itertools.product(*choices):
        yield dict(zip(flattened, chosen, strict=True))


class Plan(NamedTuple):
    """A run that is about to be computed: its overrides, what they compose, and its folder."""

    words: list[str]
    cfg: DictConfig
    choices: dict[str, Any]
    folder: Path

    @property
    def command(self) -> list[str]:
        return ["dimred train", *self.words]

    def result(self, values: dict[str, Any]) -> Result:
        """Of a run that is done."""
        return Result(self.folder, values, _targets=(self.cfg.model._target_,))

    def failed(self, reason: str) -> Result:
        return Result(self.folder, {**self.choices, "status": "failed", "reason": reason})


def label(i: int, plans: Sequence[Plan]) -> Run:
    return Run(f"run {i + 1} of {len(plans)}", " ".join(plans[i].words))


def planned(values: Mapping[str, Any], config_dir: AnyPath | None) -> Plan:
    """UserError for what is unknown or not allowed, before anything is computed."""
    from dimred.runs.config.schema import checked
    from dimred.runs.identity import describe, folder_of

    words = from_values(values)
    require_one_way(words)
    own = own_folder(fspath(config_dir)) if config_dir is not None else None
    cfg, choices = composed_with_choices(words, own)
    require_plain_names(choices)
    complete = checked(cfg)
    folder = folder_of(complete, choices, describe(complete)).absolute()
    return Plan(words, cfg, choices, folder)


def computed(plan: Plan) -> Result:
    """Compute a run; its result. UserError if it fails."""
    from dimred.runs.failures import readable
    from dimred.runs.run import run

    keys = [word.partition("=")[0] for word in plan.words]
    with showing_what_is_asked_for(), ending_as_python_does():
        try:
            result = run(plan.cfg, plan.choices, keys, plan.command)
        except Exception as error:
            message = readable(error)
            if message is error:
                raise
            raise message from error
    return plan.result(result)


def computed_or_failed(plan: Plan) -> Result:
    """The result of a run of a sweep, whether it fails or not."""
    try:
        return computed(plan)
    except UserError as error:
        log.error("%s failed: %s", plan.folder.name, error)
        return plan.failed(str(error))


def side_by_side(plans: Sequence[Plan], jobs: int | Literal["auto"]) -> list[Result]:
    """The results of the runs of a sweep, several computed at once."""
    from dimred.runs.packed.pool import shared_pool, the_pool
    from dimred.runs.packed.worker import task_of

    at_once = None if jobs == "auto" else jobs
    require(at_once is None or at_once >= 1, "jobs", jobs, '1 or more, or "auto"')
    level = logging.getLogger("dimred").getEffectiveLevel()
    tasks = [
        task_of(plan.cfg, plan.choices, plan.words, plan.command, label(i, plans), level)
        for i, plan in enumerate(plans)
    ]
    results: dict[int, Result] = {}
    with ending_as_python_does(), shared_pool():
        for i, outcome in the_pool(at_once).outcomes(tasks):
            done = outcome.pop("overrides") and outcome["status"] == "done"
            results[i] = plans[i].result(outcome) if done else plans[i].failed(outcome["reason"])
    return [results[i] for i in range(len(plans))]


@contextmanager
def ending_as_python_does() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt, other signals end the program, after its own handlers of them;
    training is saved before."""
    try:
        with handing_on_signals():
            yield
    except Interrupted as stop:
        if stop.signal == signal.SIGINT:
            raise KeyboardInterrupt(str(stop)) from None
        raise
