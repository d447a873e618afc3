"""A run that is interrupted anywhere, in any way, ends with the same bits as one that is not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import (
    ROOT,
    SCRIPT,
    Command,
    Outcome,
    assert_same,
    result_of,
    steps_done,
    twin,
    until,
)
from torch import Tensor, nn
from toy import RECIPE, Blobs, Crash, Fragile, model

from dimred.conformance import observe as conformance
from dimred.conformance.observe import run
from dimred.errors import Interrupted, UserError
from dimred.methods.reference_networks import Dense
from dimred.net import Net
from dimred.storage.folder import RunFolder
from dimred.storage.tensors import read_tensors, write_tensors
from dimred.training.loop import Train
from dimred.training.observers import Observer

#: in a short training, things have to happen more often
OFTEN = {"every": 7, "rewind": 5, "rate": 0.5, "examples": 32}
LONG = ("method=dense", "recipe.epochs=60")  # about a second


def often(method: str) -> list[str]:
    keys = yaml.safe_load((ROOT / f"conf/method/{method}.yaml").read_text())
    return [
        f"method={method}",
        *(f"method.{key}={value}" for key, value in OFTEN.items() if key in keys),
    ]


# -- processes --------------------
@pytest.mark.parametrize(
    "method, more",
    [
        ("freezenet", []),  # its base is drawn again from the seed
        ("rigl", ["recipe.optimizer=adam"]),
        ("imp", ["sparsity=0.7", "method.rewind=weights"]),
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(
    method: str,
    more: list[str],
    train: Callable[..., Path],
    start: Callable[..., Command],
    tmp_path: Path,
) -> None:
    arguments = [*often(method), "recipe.epochs=2", "checkpoint_seconds=0", *more]
    whole = train(*arguments)
    killed, steps = twin(whole, tmp_path / "killed"), result_of(whole)["steps"]
    delay = random.Random(f"{method}{more}")
    for part in (0.0, 0.3, 0.6, 0.95):
        process = start("train", *arguments, f"outputs={tmp_path / 'killed'}").process
        until(lambda: steps_done(killed) > part * steps or (killed / "result.json").exists())  # noqa: B023
        time.sleep(delay.random() * 0.02)
        process.kill()
        process.join()
    assert_same(train(*arguments, outputs=tmp_path / "killed"), whole)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    assert Command(("train", *LONG, f"outputs={folder}"), folder / "process").wait().code == 0
    return next(folder.glob("runs/*/*/*"))


def begun(run: Path) -> Callable[[], bool]:
    return lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_command_goes_on(
    number: signal.Signals,
    long: Path,
    train: Callable[..., Path],
    start: Callable[..., Command],
    tmp_path: Path,
) -> None:
    run = twin(long, tmp_path / "stopped")
    command = start("train", *LONG, f"outputs={tmp_path / 'stopped'}")
    until(begun(run))
    os.kill(command.pid, number)
    code, _, err = command.wait()
    assert code == 128 + number and "Repeat the command to resume" in err and "Traceback" not in err
    assert steps_done(run) > 0 and not (run / "result.json").exists()
    last = (run / "log.txt").read_text().splitlines()[-1]
    assert f"INFO stopped by signal {int(number)} after step {steps_done(run)}. Repeat" in last
    assert_same(train(*LONG, outputs=tmp_path / "stopped"), long)


def test_a_signal_ends_a_whole_sweep(start: Callable[..., Command], tmp_path: Path) -> None:
    command = start("train", "-m", *LONG, "seed=0,1", f"outputs={tmp_path}")
    until(lambda: any(path.stat().st_size for path in tmp_path.glob("runs/*/*/*/metrics.jsonl")))
    os.kill(command.pid, signal.SIGTERM)
    code, _, err = command.wait()
    assert (
        code == 143
        and "Repeat the command to resume" in err
        and len(list(tmp_path.glob("runs/*/*/*"))) == 1
    )


def test_the_installed_command_is_stopped_and_resumed(long: Path, tmp_path: Path) -> None:
    run = twin(long, tmp_path / "stopped")
    command = [SCRIPT, "train", *LONG, f"outputs={tmp_path / 'stopped'}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until(begun(run))
        process.terminate()
        assert process.stderr and "Repeat the command to resume" in process.stderr.read()
    assert process.returncode == 143
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "resumed at step" in done.stderr
    assert_same(run, long)


def test_killed_before_the_first_checkpoint_it_starts_over(
    long: Path, train: Callable[..., Path], start: Callable[..., Command], tmp_path: Path
) -> None:
    run = twin(long, tmp_path / "killed")
    process = start("train", *LONG, f"outputs={tmp_path / 'killed'}").process
    until(begun(run))
    process.kill()
    process.join()
    assert steps_done(run) == 0
    for leftover in (
        ".model.safetensors.1",
        ".result.json.1",
        ".masks.npz.partial.npz",
        "checkpoint/.last.2",
    ):
        (run / leftover).parent.mkdir(exist_ok=True)
        (run / leftover).write_text("half a file")
    assert_same(train(*LONG, outputs=tmp_path / "killed"), long)


def test_a_run_is_computed_by_one_process_at_a_time(
    long: Path, start: Callable[..., Command], dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    command = ("train", *LONG, f"outputs={tmp_path / 'busy'}")
    first = start(*command)
    until(begun(twin(long, tmp_path / "busy")))
    os.kill(first.pid, signal.SIGSTOP)  # so that it cannot be done before the other one has begun
    code, _, err = dimred(*command)
    os.kill(first.pid, signal.SIGCONT)
    assert (
        code == 1
        and f"already being computed by process {first.pid} on" in err
        and "Traceback" not in err
    )
    assert first.wait().code == 0
    assert_same(twin(long, tmp_path / "busy"), long)


# -- in one process (a crash at many points of every method: the check `resume` of the conformance
# suite) ----------
def attempt(folder: Path, last: int = -1, built: nn.Module | None = None) -> None:
    """Train a toy net, or resume it. Crash before the step `last`."""
    net = Net(built or model(), seed=1)
    with RunFolder(folder) as run_folder:
        train = Train(net, Blobs(), RECIPE, folder=run_folder, observers=[Fragile(last)])
        Dense().run(net, train)


class StopInEvaluation(Observer):
    """A signal comes in the evaluation after the step `last`."""

    def __init__(self, last: int) -> None:
        self.last = last

    def after_evaluation(self, train: Train, line: Mapping[str, Any]) -> None:
        if line["step"] == self.last:
            train.stop.signal = signal.SIGTERM


@pytest.mark.parametrize("last", [8, 40])  # the end of an epoch, and of training
def test_a_signal_in_an_evaluation_saves_the_step_before_it(tmp_path: Path, last: int) -> None:
    with RunFolder(tmp_path) as run_folder:
        net = Net(model(), seed=1)
        observers = [StopInEvaluation(last)]
        train = Train(net, Blobs(), RECIPE, folder=run_folder, observers=observers)
        with pytest.raises(Interrupted):
            Dense().run(net, train)
    assert steps_done(tmp_path) == last


def test_a_run_that_is_resumed_with_other_threads_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Crash):
        attempt(tmp_path, last=10)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        with pytest.raises(Crash):
            attempt(tmp_path, last=19)
    finally:
        torch.set_num_threads(threads)
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == [
        f"resumed with threads {threads + 1} instead of {threads}: the bits may differ from those "
        "of an uninterrupted run"
    ]


def test_a_run_that_is_resumed_as_it_began_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Crash):
        attempt(tmp_path, last=10)
    attempt(tmp_path)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_a_run_does_not_go_on_from_other_initial_weights(tmp_path: Path) -> None:
    with pytest.raises(Crash):
        attempt(tmp_path, last=10)
    other = model()
    with torch.no_grad():
        next(other.parameters()).view(-1)[3] += 1e-7
    with pytest.raises(
        UserError, match=r"makes other initial weights than when this run began\. A file"
    ):
        attempt(tmp_path, built=other)


class Drawing(nn.Module):
    """Draws from the global generators of numpy and Python in every forward pass, as stochastic
    depth may."""

    def __init__(self) -> None:
        super().__init__()
        self.body = model()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x * random.gauss(1, 0.5) + float(np.random.randn()))


def test_a_model_may_draw_from_any_generator(tmp_path: Path) -> None:
    """A run is the same whatever was drawn before, in one go and resumed."""
    states = []
    for name, lasts in (("in one go", [-1]), ("again", [-1]), ("resumed", [10, 19, -1])):
        for last in lasts:
            random.seed(f"{name} {last}")
            np.random.seed(len(name) + last)
            body = Drawing()
            with suppress(Crash):
                attempt(tmp_path / name, last=last, built=body)
        states.append(body.state_dict())
    for other in states[1:]:
        assert all(torch.equal(value, other[key]) for key, value in states[0].items())


def test_metrics_that_were_cut_are_not_padded(tmp_path: Path) -> None:
    with pytest.raises(Crash):
        attempt(tmp_path, last=19)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"metrics.jsonl is damaged .*Remove .*checkpoint"):
        attempt(tmp_path)


def test_a_checkpoint_that_is_older_than_some_of_its_keys_is_resumed(tmp_path: Path) -> None:
    whole = run(Dense(), "mlp").trace.state
    with RunFolder(tmp_path) as folder, pytest.raises(conformance.Crash):
        run(Dense(), "mlp", folder=folder, crash=8)
    tensors, about = read_tensors(folder.checkpoint)
    assert about["step"] > 0
    older = {key: about[key] for key in about if key not in ("captured_steps", "arithmetic")}
    assert len(older) == len(about) - 2
    write_tensors(folder.checkpoint, tensors, older)
    with RunFolder(tmp_path) as folder:
        resumed = run(Dense(), "mlp", folder=folder).trace.state
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
