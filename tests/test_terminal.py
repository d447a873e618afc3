"""The output of a run and its interruption: in a terminal, without one, in a sweep."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import SCRIPT, Command

from dimred.runs.terminal import printable
from dimred.training.progress import Progress

SHORT = "recipe.epochs=1"


def messages(log: Path) -> list[str]:
    """The lines of a log.txt without their time."""
    return [line.split(" INFO ")[1] for line in log.read_text().splitlines()]


# -- without a terminal --------------------
def test_log_and_stderr_have_a_line_for_every_epoch_and_every_round(
    train: Callable[..., Path], start: Callable[..., Command], tmp_path: Path
) -> None:
    outcome = start(
        "train", "method=imp", "sparsity=0.5", "recipe.epochs=2", f"outputs={tmp_path / 'out'}"
    ).wait()
    lines = messages(next(tmp_path.glob("out/runs/*/*/*/log.txt")))
    epochs = [line.partition(", step")[0] for line in lines if ", step" in line]
    # 0.8^4 < 0.5
    rounds = [f"round {k} of 4: epoch {n} of 2" for k in (1, 2, 3, 4) for n in (1, 2)]
    assert epochs == ["epoch 1 of 2", "epoch 2 of 2", *rounds]
    ends = [line for line in lines if "done in" in line]
    # of 50200: 0.8, 0.64 and 0.512 of them, rounded, then a half
    trained = (40160, 32128, 25702, 25100)
    for k, (line, dim) in enumerate(zip(ends, trained, strict=True), 1):
        assert re.fullmatch(
            rf"round {k} of 4: done in [\d.]+ s, validation accuracy [\d.]+ %, "
            rf"{dim} weights trained",
            line,
        )
    for line in lines:
        assert f"dimred: {line}\n" in outcome.err


def test_a_training_of_many_epochs_does_not_flood_its_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    monkeypatch.setattr(logging.getLogger("dimred.progress"), "handlers", [handler])
    progress = Progress(total=5000, epoch_steps=2)
    with caplog.at_level(logging.INFO, "dimred.progress"):
        for step in range(2, 5001, 2):
            line = {"step": step, "train_loss": 1.0, "train_accuracy": 0.5, "dim": 7}
            progress.evaluated(line, step == 5000)
    assert len(lines) == 834  # every third epoch, and the last one
    assert lines[-1] == "epoch 2500 of 2500, step 5000: loss 1.0000, accuracy 50.0 %"


# -- in a terminal --------------------
class Terminal:
    """A command in a terminal of 80 columns."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [SCRIPT, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(slave)
        self.seen = b""

    def read(self, until: bytes | None = None) -> str:
        """What is shown up to some text, or up to the end."""
        while until is None or until not in self.seen:
            try:
                self.seen += os.read(self._master, 65536)
            except OSError:  # the command has ended
                break
        return self.seen.decode()


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_terminal(*arguments: str) -> Terminal:
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.process.kill()
        each.process.wait()


def test_the_bar_says_run_round_epoch_and_accuracy_in_eighty_columns(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    shown = terminal(
        "train",
        "-m",
        "method=imp",
        "sparsity=0.3",
        "seed=0,1",
        "recipe.epochs=30",
        f"outputs={tmp_path}",
    ).read()
    bars = [line for line in re.split("[\r\n]", shown) if " left" in line]
    assert all(len(bar) <= 80 for bar in bars)
    assert any(
        re.match(r"run 2 of 2, round 1 of 2, epoch \d+ of 30, [\d.]+ % \|.*left$", bar.strip())
        for bar in bars
    )
    assert ": loss" not in shown  # lines are for where there is no bar


def test_scores_that_take_long_have_a_bar_and_end_at_once_by_ctrl_c(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    window = terminal("train", "method=ntt", "method.transfer_steps=100000", f"outputs={tmp_path}")
    assert "transfer" in window.read(until=b" of 100000 |")
    window.process.send_signal(signal.SIGINT)
    shown = window.read()
    assert window.process.wait() == 130
    assert "stopped by signal 2 outside of training" in shown and "Traceback" not in shown
    assert "100000 of 100000" not in shown  # the end of the scores, minutes later


# -- stopping --------------------
STEPS = """
import time
from dimred.runs.signals import stopping_at_signals
from dimred.training.stop import Stop

stop = Stop()
with stopping_at_signals(stop), stop.after_a_step():
    print("begun", flush=True)
    while not stop.signal:
        time.sleep(0.01)
    print("this step is finished", flush=True)
    time.sleep(60)
"""


def test_ctrl_c_in_a_step_is_answered_at_once_and_a_second_one_ends_it() -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", STEPS], text=True, **pipes) as process:
        assert process.stdout and process.stderr and process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert (
            process.stderr.readline()
            == "dimred: SIGINT: stopping after this step. Once more: at once\n"
        )
        assert process.stdout.readline() == "this step is finished\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(50) == -signal.SIGINT  # it would sleep for 60 seconds


# -- text --------------------
@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain ± ü", "plain ± ü"),
        ("a\x1b[31mred", r"a\x1b[31mred"),
        ("one\ntwo\tthree", "one\ntwo\tthree"),
        ("\x9b2J\u202eevil", r"\x9b2J\u202eevil"),
        ("over\rwritten", r"over\rwritten"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown
