"""Where packed runs are computed: GPUs and the CPU, how many fit, and NVIDIA's MPS."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from conftest import until, warnings_in

import dimred as front_door
from dimred.runs.packed import places, pool, workers
from dimred.runs.packed.mps import CONTROL, MPS, exclusive
from dimred.runs.packed.places import CONTEXT, CPU, MARGIN, Place, fitting, homes, place
from dimred.runs.packed.process import Worker
from dimred.runs.packed.worker import Task, threads_of
from dimred.runs.packed.workers import Workers


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


@pytest.mark.parametrize(
    ("given", "count", "names"),
    [
        ("", 2, ["0", "1"]),
        ("3, 5", 2, ["3", "5"]),
        ("3,-1,5", 1, ["3"]),  # what comes after an unknown number is not visible
        ("GPU-ab,GPU-cd", 2, ["GPU-ab", "GPU-cd"]),
        ("MIG-ab,MIG-cd", 1, ["MIG-ab", "MIG-cd"]),  # a process sees the first of these alone
        ("MIG-ab", 0, []),
    ],
)
def test_workers_see_the_gpus_that_the_sweep_may_use(
    given: str, count: int, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "DRIVERS", ("/",))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert places.visible_gpus() == names


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
    monkeypatch.setattr(workers, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    spread = pool.Pool(Workers(given=1))
    spread.settle([task(device) for _ in range(3)], more=False)
    spread.assign()
    assert [worker.place.visible for worker in spread.workers.busy()] == gpus
    assert len(spread.waiting) == 3 - len(gpus)
    for worker in spread.workers.processes:
        until(lambda: environment_of(worker))  # noqa: B023
        environment = environment_of(worker)
        worker.kill()
        assert environment["CUDA_VISIBLE_DEVICES"] == worker.place.visible
        assert environment["OMP_NUM_THREADS"] == str(8 // len(gpus))
    spread.workers.close()


# -- MPS --------------------
FAKE = """#!/bin/sh
# a control program that keeps its state in its folder of pipes
state="${CUDA_MPS_PIPE_DIRECTORY:-$DEFAULT}/running"
echo "$@" >> "$CALLS"
if [ "$1" = -d ]; then
    [ -z "$REFUSES" ] || { echo "$REFUSES" >&2; exit 1; }
    [ -z "$ENDS" ] || exit 0
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
    assert control.read_text().split() == ["get_server_list", "-d", "get_server_list", "quit"]


def test_an_mps_that_ends_at_once_is_given_up(
    control: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ENDS", "1")
    mps = MPS()
    mps.start()
    assert not mps.running and mps.environment == {}
    assert warnings_in(caplog) == [
        "NVIDIA MPS cannot be used (Cannot find MPS control daemon process): runs on a GPU take "
        "turns"
    ]


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
    assert warnings_in(caplog) == [
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
    assert control.read_text().split() == ["get_server_list", "-d", "get_server_list", "quit"]
    assert warnings_in(caplog)[0].startswith("NVIDIA MPS cannot be used (")
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
