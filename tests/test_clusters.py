"""What schedulers of clusters do to runs: signals, lost nodes, two jobs for one run."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Command, assert_same, until

from dimred.errors import Interrupted
from dimred.runs.signals import handing_on_signals, stopping_at_signals
from dimred.storage import lease
from dimred.storage.folder import RunFolder


@dataclass
class Training:
    in_steps: bool = False
    stop_signal: int = 0


@pytest.fixture
def came() -> Iterator[list[int]]:
    """The signals that reach the handler of the scheduler's program, as of submitit."""
    came: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: came.append(number))
    yield came
    signal.signal(signal.SIGUSR2, before)


def test_a_signal_reaches_the_handler_of_the_job_once_its_run_is_closed(
    came: list[int], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted) as stop, handing_on_signals():
        with RunFolder(tmp_path / "run"), stopping_at_signals(Training()):
            os.kill(os.getpid(), signal.SIGUSR2)
        pytest.fail("the run went on")
    assert came == [signal.SIGUSR2] and stop.value.code == 128 + signal.SIGUSR2


def test_a_scheduler_may_send_one_signal_after_another(came: list[int]) -> None:
    """SIGUSR2 and later SIGTERM do not end a step that is being saved."""
    training = Training(in_steps=True)
    with stopping_at_signals(training):
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGTERM)
    assert training.stop_signal == signal.SIGUSR2 and came == []


# -- a folder that several machines share --------------------
@dataclass
class Machine:
    """What a process on a machine of its own sees of a file system without locks of files. Its
    lease is stale after 1.8 seconds."""

    name: str

    def __call__(self) -> None:
        os.environ["DIMRED_HEARTBEAT"] = "0.3"
        lease.machine = lambda: self.name
        fcntl.flock = self.refuse

    def refuse(self, file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def test_a_run_is_computed_on_one_machine_at_a_time(
    start: Callable[..., Command], tmp_path: Path
) -> None:
    command = ("train", "method=dense", "recipe.epochs=100000", f"outputs={tmp_path}")
    first = start(*command, before=Machine("a"))
    until(lambda: list(tmp_path.glob("runs/*/*/*/metrics.jsonl")))
    code, _, err = start(*command, before=Machine("b")).wait()
    assert code == 1 and f"already being computed by process {first.pid} on" in err
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait().code == 143 and not list(tmp_path.glob("runs/*/*/*/.lease"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_run_whose_machine_gives_no_sign_goes_on_at_another_one(
    number: signal.Signals,
    train: Callable[..., Path],
    start: Callable[..., Command],
    tmp_path: Path,
) -> None:
    """And if the first machine comes back, it writes nothing."""
    long = ("train", "method=dense", "recipe.epochs=40", "checkpoint_seconds=0.1")
    command = (*long, f"outputs={tmp_path}")
    first = start(*command, before=Machine("a"))
    until(lambda: list(tmp_path.glob("runs/*/*/*/checkpoint/last.safetensors")))
    os.kill(first.pid, number)
    code, out, err = start(*command, before=Machine("b")).wait()
    assert code == 0 and f"process {first.pid} on" in err and "resumed at step" in err
    if number == signal.SIGSTOP:
        os.kill(first.pid, signal.SIGCONT)
        stopped = first.wait()
        assert stopped.code == 1 and "this run was taken over" in stopped.err
    assert_same(Path(out.splitlines()[-1].strip()), train(*long[1:], outputs=tmp_path / "whole"))
