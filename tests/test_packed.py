"""Runs side by side have the results of runs one after the other, whatever happens to the processes
that compute them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import Command, assert_same, steps_done, until, warnings_in
from torch import nn

import dimred as front_door
from dimred.errors import OutOfMemory
from dimred.models import lenet300
from dimred.runs.build import explained as why_not_built
from dimred.runs.failures import readable
from dimred.runs.packed.pool import shared_pool
from dimred.runs.trial import explained

LONG = ("method=rigl", "recipe.epochs=100000", "checkpoint_seconds=1000")


@pytest.fixture(scope="module", autouse=True)
def workers() -> Iterator[None]:
    """The sweeps of this process share their workers, as those of one command do."""
    with shared_pool():
        yield


def hungry(shape: tuple[int, int, int], classes: int, failures: int, notes: str) -> nn.Module:
    """LeNet-300-100, but the first so many times that it is built memory is too small. The place of
    its notes is written with |, for a path is an input of the run."""
    tries = Path(notes.replace("|", "/"))
    with tries.open("a") as file:
        file.write(".")
        file.flush()
        count = file.tell()
    if count <= failures:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
    return lenet300(shape=shape, classes=classes, init="kaiming_normal", pretrained=None)


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """A folder with the model `hungry`."""
    file = tmp_path / "conf/model/hungry.yaml"
    file.parent.mkdir(parents=True)
    notes = str(tmp_path / "notes").replace("/", "|")
    file.write_text(f'_target_: test_packed.hungry\nfailures: 1\nnotes: "{notes}"\n')
    return tmp_path / "conf"


# -- results --------------------
def test_packed_runs_end_with_the_bits_of_runs_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the workers
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    swept = {"sparsity": [0.5, 0.9], "seed": [0, 1], "recipe": {"epochs": 2}}
    serial = front_door.sweep(["rigl", "dense"], outputs=str(tmp_path / "serial"), **swept)
    torch.set_num_threads(threads)
    packed = front_door.sweep(["rigl", "dense"], jobs=2, outputs=str(tmp_path / "packed"), **swept)
    assert [run.method for run in packed] == ["rigl"] * 4 + ["dense"] * 4
    for one, other in zip(serial, packed, strict=True):
        assert_same(one.folder, other.folder)
    # a dense run has no sparsity: two of the sweep are the same, and one waits for the other
    assert packed[4].folder == packed[6].folder and packed[6].status == "done"


def test_a_run_that_does_not_fit_beside_others_is_tried_again_alone(
    configured: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    runs = front_door.sweep(
        "snip",
        model=["hungry", "lenet300"],
        seed=range(2),
        jobs=2,
        config_dir=configured,
        outputs=str(tmp_path),
        recipe={"epochs": 1},
    )
    assert [run.status for run in runs] == ["done"] * 4
    assert warnings_in(caplog) == ["out of memory beside other runs. It is tried again alone"]


def test_a_run_that_does_not_fit_alone_fails_and_the_others_go_on(
    configured: Path, tmp_path: Path
) -> None:
    runs = front_door.sweep(
        "snip",
        model="hungry",
        seed=range(2),
        jobs=2,
        config_dir=configured,
        outputs=str(tmp_path),
        recipe={"epochs": 1},
        **{"model.failures": 3},  # two beside each other, one alone
    )
    assert [run.status for run in runs] == ["failed", "done"]
    assert runs[0].reason.startswith(
        "out of memory (CUDA out of memory. Tried to allocate 9.00 GiB"
    )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB."),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_memory_that_is_too_small_is_recognised_however_it_is_said(error: Exception) -> None:
    assert isinstance(readable(error), OutOfMemory)


def test_a_gpu_that_fails_is_no_fault_of_the_model() -> None:
    """The batch that is tried before training passes such an error on, and so do builders."""
    error = torch.AcceleratorError("CUDA error: unspecified launch failure\nmore")
    with pytest.raises(torch.AcceleratorError), explained("Net", torch.zeros(2, 1, 8, 8), 2):
        raise error
    assert why_not_built(error, {}, "model") is error
    message = str(readable(error))
    assert message.startswith("the GPU failed (CUDA error: unspecified launch failure). Repeat")


# -- processes --------------------
def worker_of(run: Path) -> int:
    return int((run / ".lock").read_text().split()[1])


def was_resumed(run: Path) -> bool:
    log = run / "log.txt"
    return log.exists() and "resumed at" in log.read_text()


def training(folder: Path) -> list[Path]:
    """The runs that have evaluated once."""
    return [path.parent for path in folder.glob("runs/*/*/*/metrics.jsonl") if path.stat().st_size]


def test_workers_that_cannot_start_are_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    runs = front_door.sweep("snip", seed=range(3), jobs=3, outputs=str(tmp_path))
    assert [run.reason for run in runs] == 3 * [
        "not begun: a worker process ended before it was ready (exit status 1)"
    ]


def test_a_worker_that_is_killed_costs_its_run_alone(
    in_this_process: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def kill_the_first() -> None:
        until(lambda: len(list(tmp_path.glob("runs/*/*/*/result.json"))) == 3)
        (run,) = [run for run in training(tmp_path) if not (run / "result.json").exists()]
        os.kill(worker_of(run), signal.SIGKILL)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    code = in_this_process(
        *("train", "-m", "hydra/launcher=packed", "hydra.launcher.n_jobs=2"),
        *("recipe.epochs=100000,1,2,3", f"outputs={tmp_path}"),
    )
    killer.join()
    out, err = capsys.readouterr()
    assert code == 1 and out.endswith("4 runs, 1 failed\n")
    lines, _, table = out.partition("\n\n")
    assert sorted(line.partition(":")[0] for line in lines.splitlines()) == [
        f"run {i + 1} of 4 (recipe.epochs={i})" for i in (1, 2, 3)
    ]
    assert [word for word in table.split() if word.startswith("recipe.epochs")] == [
        f"recipe.epochs={i}" for i in (1, 2, 3, 100000)
    ]
    assert err.startswith(
        "dimred: run 1 of 4 (recipe.epochs=100000): its process was ended or crashed (SIGKILL). "
        "Repeat the command to resume it"
    )


def test_a_run_whose_worker_is_killed_after_its_result_was_written_is_done(
    in_this_process: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "lines.jsonl"
    code = in_this_process(
        *("train", "-m", "hydra/launcher=packed", "hydra.launcher.n_jobs=2", "seed=0,1"),
        *("recipe.steps=2", f"outputs={tmp_path}", f"+tracker.lines.path={path}"),
        *("+tracker.lines._target_=own_trackers.Lines", "+tracker.lines.kill=finish"),
    )
    out, err = capsys.readouterr()
    assert Path(f"{path}.ended").exists()  # one worker was killed
    assert code == 0 and err == ""
    assert out.count("test accuracy ") == 2 and out.endswith("2 runs, 0 failed\n")


def test_reproduce_packs_all_runs_of_a_table(
    in_this_process: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ("reproduce", "survey_digits", "--only", "init: crop", "--seeds", "1")
    command = (*command, "recipe.epochs=1", f"outputs={tmp_path}", "--jobs")
    assert in_this_process(*command, "2", "--dry-run") == 0
    out = capsys.readouterr().out
    assert out.endswith("hydra/launcher=packed hydra.launcher.n_jobs=2\n")
    assert in_this_process(*command, "2") == 0
    out = capsys.readouterr().out
    for i, sparsity in enumerate((0.9, 0.95, 0.98)):
        assert f"run {i + 1} of 3 (sparsity={sparsity}): test accuracy " in out
    assert "| at init: crop | " in out
    assert in_this_process(*command, "2") == 0
    assert "no runs are missing" in capsys.readouterr().out
    assert in_this_process(*command, "0") == 1
    assert "--jobs=0 is not allowed. It must be 1 or more, or auto" in capsys.readouterr().err


def test_ctrl_c_saves_all_runs_and_the_same_command_resumes_them(
    in_this_process: Callable[..., int],
    start: Callable[..., Command],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    arguments = (
        *("train", "-m", "hydra/launcher=packed", "hydra.launcher.n_jobs=2", *LONG),
        *("seed=0,1,2", f"outputs={tmp_path}"),
    )

    def press() -> None:
        until(lambda: len(training(tmp_path)) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    assert in_this_process(*arguments) == 130
    presser.join()
    assert capfd.readouterr().err.splitlines() == [
        "dimred: SIGINT: saving all runs. Once more: at once",
        "dimred: stopped by signal 2. Finished runs are kept, and those that were training up to "
        "their last step. Repeat the command to resume",
    ]
    runs = training(tmp_path)
    saved = [steps_done(run) for run in runs]
    assert all(saved)

    command = start(*arguments)
    until(lambda: all(was_resumed(run) for run in runs))
    workers = [worker_of(run) for run in runs]
    os.kill(command.pid, signal.SIGKILL)  # its workers save their runs and end all the same
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert all(steps_done(run) > before for run, before in zip(runs, saved, strict=True))
