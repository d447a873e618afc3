"""What schedulers of clusters do to runs: signals, lost nodes, two jobs for one run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dimred.errors import Interrupted
from dimred.runs.signals import handing_on_signals, stopping_at_signals
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
