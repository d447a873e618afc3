"""dimred status: what it says of runs that other processes compute."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command, until

from dimred.cli import status
from dimred.cli.main import main
from dimred.cli.status import look, seconds_left
from dimred.storage.lease import HEARTBEAT, NAME, read_lease
from dimred.training.progress import Progress


def test_a_run_is_running_then_waiting_and_at_last_done(
    start: Callable[..., Command],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    command = ("train", "method=dense", "recipe.epochs=10000", f"outputs={tmp_path}")
    process = start(*command)
    metrics = "runs/*/*/*/metrics.jsonl"
    until(lambda: any(path.stat().st_size for path in tmp_path.glob(metrics)))
    until(lambda: look(tmp_path)[0].get("fraction"))
    (row,) = look(tmp_path)
    assert (row["state"], row["process"], row["host"]) == (
        *("running", process.pid),
        socket.gethostname(),
    )
    assert 0 < row["fraction"] < 1 and row["seconds_left"] > 0
    assert row["at"].startswith("epoch ") and row["at"].endswith(" of 10000")
    lease = read_lease(Path(row["folder"]) / NAME)
    assert lease and lease["changed"] / 1e9 - lease["since"] < HEARTBEAT  # long before the first

    watched = []

    def kill(seconds: float) -> None:
        watched.append(capsys.readouterr().out)
        os.kill(process.pid, signal.SIGKILL)
        process.process.join()

    monkeypatch.setattr(status.time, "sleep", kill)  # what happens between two looks
    assert main(["status", str(tmp_path), "--watch"]) == 0
    assert "1 run: 1 running" in watched[0] and f"process {process.pid}" in watched[0]
    out = capsys.readouterr().out
    assert "1 run: 1 waiting" in out and "epoch" in out and "process" not in out

    (config,) = tmp_path.glob("runs/*/*/*/config.yaml")
    for result, shown in (
        ({"status": "failed", "reason": "out of memory"}, "out of memory"),
        ({"status": "done"}, "1 run: 1 done"),
    ):
        (config.parent / "result.json").write_text(json.dumps(result))
        assert main(["status", str(tmp_path)]) == 0 and shown in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [("status",), ("show",), ("compare", "."), ("mask", "show"), ("train", "--from")],
)
def test_commands_that_read_folders_alone_say_so_of_a_url(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "s3://bucket/runs"]) == 1
    err = capsys.readouterr().err
    assert "s3://bucket/runs is a URL, which table, runs and plot can read" in err


def test_the_time_left_is_that_of_the_rest_at_the_pace_so_far() -> None:
    assert seconds_left({"fraction": 0.25, "seconds": 30.0}) == 90.0
    assert seconds_left({"fraction": 0.0, "seconds": 30.0}) is None
    assert seconds_left({}) is None


def test_the_progress_of_rounds_counts_the_rounds_before() -> None:
    """The second of 4 rounds, at step 5 of 10: 1.5 of 4."""
    progress = Progress(total=10, epoch_steps=5)
    rounds = progress.rounds(range(4), "round")
    next(rounds), next(rounds)
    with progress.steps(0, 10, 4):
        progress.step()
    assert progress.position() == {"doing": "round 2 of 4, epoch 2 of 2", "fraction": 0.375}
