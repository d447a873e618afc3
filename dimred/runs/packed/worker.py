"""A worker process: computes one run after another, and reports to the process that started it."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from dimred.errors import Interrupted, OutOfMemory, RunIsBusy, first_line
from dimred.runs.environment import prepare_process
from dimred.runs.signals import ending_with_parent
from dimred.training import sweep_label
from dimred.training.sweep_label import Run

if TYPE_CHECKING:
    from omegaconf import DictConfig

Message = dict[str, Any]
Outcome = dict[str, Any]  # of a run: its overrides, and its result or the reason of its failure


@dataclass(frozen=True)
class Task:
    """A run to compute.

    cfg: the configuration, as YAML
    device: as in the configuration
    choices, overrides, command: as `runs.run.run` takes them
    label, values: name the run in log messages
    level: of the log messages to report; log.txt has all
    only_finished: look for the result of the run, and do not compute it
    """

    cfg: str
    device: str
    choices: Mapping[str, Any]
    overrides: Sequence[str]
    command: Sequence[str]
    label: str
    values: str
    level: int = logging.WARNING
    only_finished: bool = False

    def encoded(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def task_of(
    cfg: DictConfig,
    choices: Mapping[str, Any],
    overrides: Sequence[str],
    command: Sequence[str],
    label: Run,
    level: int,
) -> Task:
    """The task of a composed configuration. One that cannot be resolved is passed on as it is: its
    run says what is wrong."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        text, device = OmegaConf.to_yaml(cfg, resolve=True), str(cfg.device)
    except OmegaConfBaseException:
        text, device = OmegaConf.to_yaml(cfg), ""
    return Task(text, device, choices, overrides, command, label.label, label.values, level)


class Reported(logging.Handler):
    """Hands log messages to the process that started this one."""

    def __init__(self, report: Callable[[Message], None]) -> None:
        super().__init__()
        self.report = report

    def emit(self, record: logging.LogRecord) -> None:
        self.report({"log": [record.levelno, self.format(record)]})


def main(descriptor: int, on_gpu: bool) -> None:
    """Compute the tasks that arrive, until the other end of the connection is closed.

    on_gpu: whether on the one GPU that this process sees, whatever the tasks say"""
    prepare_process()
    # a scheduler sends them to all processes of a job; this one waits for its parent's signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
    connection = Connection(descriptor)

    def report(message: Message) -> None:
        connection.send_bytes(json.dumps(message).encode())

    sweep_label.own_screen = False
    logger = logging.getLogger("dimred")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.handlers[:] = [handler := Reported(report)]
    # the other end may be closed at any time: then nobody is left to report to
    with ending_with_parent(), suppress(EOFError, ConnectionError):
        import dimred.runs.run  # noqa: F401  (once, for all tasks)

        report({"ready": True})
        serve(connection, handler, on_gpu)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)  # all files are closed, and to take torch down takes long


def serve(connection: Connection, screen: Reported, on_gpu: bool) -> None:
    """Compute tasks until the connection is closed, a signal comes, or the GPU is gone."""
    while True:
        task = Task(**json.loads(connection.recv_bytes()))
        screen.setLevel(task.level)
        if on_gpu and (reason := failure_of_gpu()):
            return screen.report({"no_gpu": reason})
        try:
            message = computed(task, on_gpu)
        except Interrupted as stop:
            return screen.report({"interrupted": stop.step})
        if message.get("broken"):
            return screen.report(message)
        free_memory()
        screen.report({**message, **gpu_memory()})


def computed(task: Task, on_gpu: bool) -> Message:
    """The outcome of a run, and what decides how its sweep goes on.

    out_of_memory: it may fit when it runs alone. busy: another process computes this very run.
    broken: the GPU has failed, and this process cannot use it any more."""
    import torch
    from omegaconf import OmegaConf

    from dimred.runs.failures import readable
    from dimred.runs.sweep import compute_run

    cfg: Any = OmegaConf.create(task.cfg)
    if on_gpu:
        cfg.device = "cuda"
    try:
        how = task.choices, task.overrides, task.command, task.only_finished
        return {"outcome": compute_run(cfg, *how)}
    except Exception as exception:
        error = readable(exception)
        return {
            "outcome": {"status": "failed", "reason": str(error)},
            "out_of_memory": isinstance(error, OutOfMemory),
            "busy": isinstance(error, RunIsBusy),
            "broken": isinstance(error.__cause__ or exception, torch.AcceleratorError)
            and not isinstance(error, OutOfMemory),
        }


def failure_of_gpu() -> str:
    """Why the GPU of this process cannot be used; empty if it can. Measures the peak of its memory
    from now on."""
    import torch

    try:
        torch.zeros(1, device="cuda")
    except Exception as error:
        return first_line(error)
    free_memory()
    torch.cuda.reset_peak_memory_stats()
    return ""


def free_memory() -> None:
    """Return the GPU memory of a run that is over to the other processes."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def gpu_memory() -> Message:
    """Bytes: the peak of the run, which is 0 if it was finished before, and what is free now.
    Nothing if no GPU is used."""
    import torch

    if not torch.cuda.is_initialized():
        return {}
    peak = torch.cuda.max_memory_reserved()
    return {"peak": peak, "free": torch.cuda.mem_get_info()[0]}


def threads_of(share: int) -> int:
    """A worker's threads: its share of the cores, or fewer if OMP_NUM_THREADS says so."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(asked)) if asked.isdecimal() and int(asked) else share
