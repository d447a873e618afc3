"""Runs side by side have the results of runs one after the other, whatever happens to the processes
that compute them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import Command, assert_same, steps_done, until
from torch import nn

import dimred as front_door
from dimred.cli.main import main
from dimred.models import lenet300
from dimred.runs.packed import pool
from dimred.runs.packed.mps import CONTROL, MPS, exclusive
from dimred.runs.packed.places import CONTEXT, CPU, MARGIN, Place, fitting, homes, place
from dimred.runs.packed.pool import shared_pool
from dimred.runs.packed.process import Worker
from dimred.runs.packed.worker import Task, threads_of

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
    assert [record.message for record in caplog.records] == [
        "out of memory beside other runs. It is tried again alone"
    ]


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


@pytest.fixture
def in_this_process() -> Iterator[Callable[..., int]]:
    """A command in this process, whose workers are there already. It sets up log messages and
    argv."""
    logger, argv = logging.getLogger("dimred"), sys.argv
    before = logger.handlers[:], logger.level, logger.propagate
    yield lambda *arguments: main([*arguments])
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])
    sys.argv = argv


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
        "dimred: stopped by signal 2. Finished runs are kept, and those that were training are "
        "saved up to their last step. Repeat the command to resume",
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


# -- places --------------------
def test_runs_are_spread_over_gpus_unless_their_device_is_one_of_them() -> None:
    assert homes("auto", 0) == homes("cpu", 2) == [CPU]
    assert homes("auto", 2) == homes("cuda", 2) == [0, 1]
    assert homes("cuda:1", 2) == [1]
    assert homes("cuda:2", 2) == homes("nonsense", 2) == [CPU]  # where the run says what is wrong


def test_a_cpu_computes_one_run_a_core_and_a_gpu_one_until_it_is_measured() -> None:
    assert place(CPU, None, 8, []).room() == 8
    gpu = place(1, None, 8, ["3", "MIG-4"])
    assert (gpu.visible, gpu.room(), gpu.workers()) == ("MIG-4", 1, 8)
    assert place(0, 3, 8, ["3"]).room() == 3


def test_as_many_runs_share_a_gpu_as_fit_into_its_free_memory() -> None:
    # one process is there: n runs take n peaks, and n - 1 processes
    peak = 2**30
    free = int(5 * MARGIN * peak + 4 * CONTEXT)
    assert fitting(peak, free + 5) == 5 and fitting(peak, free - 5) == 4
    gpu = Place("0", most=3, first=None)
    gpu.measure(peak, free + 5)
    assert gpu.room() == 3  # no more than cores
    gpu.measure(peak, 0)
    assert gpu.room() == 1


def test_workers_have_their_share_of_threads_or_fewer_if_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for asked, threads in (("", 4), ("2", 2), ("16", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert threads_of(4) == threads


def task(device: str) -> Task:
    return Task("", device, {}, [], [], "run", "")


def environment_of(worker: Worker) -> dict[str, str]:
    lines = Path(f"/proc/{worker.process.pid}/environ").read_text().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.mark.parametrize("device, gpus", [("auto", ["3", "5"]), ("cuda:1", ["5"])])
def test_a_worker_sees_one_gpu_and_runs_are_spread_over_them(
    device: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "visible_gpus", lambda: ["3", "5"])
    monkeypatch.setattr(pool, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    spread = pool.Pool(given=1)
    spread.settle([task(device) for _ in range(3)], more=False)
    spread.assign()
    assert [worker.place.visible for worker in spread.busy()] == gpus
    assert len(spread.waiting) == 3 - len(gpus)
    for worker in spread.workers:
        until(lambda: environment_of(worker))  # noqa: B023
        environment = environment_of(worker)
        worker.kill()
        assert environment["CUDA_VISIBLE_DEVICES"] == worker.place.visible
        assert environment["OMP_NUM_THREADS"] == str(8 // len(gpus))
    spread.close()


# -- MPS --------------------
FAKE = """#!/bin/sh
# a control program that keeps its state in its folder of pipes
state="${CUDA_MPS_PIPE_DIRECTORY:-$DEFAULT}/running"
echo "$@" >> "$CALLS"
if [ "$1" = -d ]; then
    [ -z "$REFUSES" ] || { echo "$REFUSES" >&2; exit 1; }
    touch "$state"
    sleep 60 &      # a daemon that holds its output open
    echo $! > "$state"
    exit 0
fi
read request
echo "$request" >> "$CALLS"
[ -e "$state" ] || { echo "Cannot find MPS control daemon process" >&2; exit 1; }
[ "$request" != quit ] || { kill "$(cat "$state")"; rm "$state"; }
"""


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A control program on PATH; the file that lists how it was called."""
    program = tmp_path / "bin" / CONTROL
    program.parent.mkdir()
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("DEFAULT", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path / "calls"


def test_mps_is_started_in_folders_of_its_own_and_ended(control: Path) -> None:
    mps = MPS()
    mps.start()
    pipes = Path(mps.environment["CUDA_MPS_PIPE_DIRECTORY"])
    daemon = int((pipes / "running").read_text())
    assert mps.running and Path(f"/proc/{daemon}").exists()
    mps.stop()
    until(lambda: not Path(f"/proc/{daemon}").exists())
    assert not pipes.exists() and not mps.running and mps.environment == {}
    assert control.read_text().split() == ["get_server_list", "-d", "quit"]


def test_an_mps_that_is_running_is_used_and_left_alone(control: Path) -> None:
    (control.parent / "running").touch()
    mps = MPS()
    mps.start()
    mps.stop()
    assert control.read_text().split() == ["get_server_list"] and mps.environment == {}
    assert (control.parent / "running").exists()


def test_without_rights_or_mps_one_line_says_so(
    control: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REFUSES", "Insufficient permissions")
    mps = MPS()
    mps.start()
    assert not mps.running and not list(control.parent.glob("dimred-mps-*"))
    monkeypatch.setenv("PATH", "")
    mps.start()
    assert [record.message for record in caplog.records] == [
        "NVIDIA MPS cannot be used (Insufficient permissions): runs on a GPU take turns",
        f"no NVIDIA MPS ({CONTROL} is not installed): runs on a GPU take turns",
    ]


def test_runs_whose_gpu_is_gone_are_not_begun_and_mps_is_ended(
    control: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(pool, "visible_gpus", lambda: ["99"])
    (run,) = front_door.sweep("snip", seed=[0], jobs=2, outputs=str(tmp_path))
    # at first the sweep's MPS may be at fault, so the GPU is tried again without it
    assert control.read_text().split() == ["get_server_list", "-d", "quit"]
    assert caplog.records[0].message.startswith("NVIDIA MPS cannot be used (")
    assert run.status == "failed" and run.reason.startswith("not begun: ")
    assert not list(tmp_path.glob("runs/*/*/*"))  # nor computed on the CPU


def test_a_gpu_in_exclusive_mode_is_recognised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$2" = 1 ] && echo Exclusive_Process || echo Default\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert exclusive("1") and not exclusive("0")
