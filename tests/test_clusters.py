"""What schedulers of clusters do to runs: signals, lost nodes, two jobs for one run."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import processes
from conftest import Command, assert_same, until

from dimred.errors import Interrupted, UserError
from dimred.runs.clusters import ray, slurm
from dimred.runs.clusters.job import Job, split
from dimred.runs.packed.commands import task
from dimred.runs.signals import handing_on_signals, stopping_at_signals
from dimred.runs.sweep import write_outcome
from dimred.storage import lease
from dimred.storage.folder import RunFolder
from dimred.training.stop import Stop
from dimred.training.sweep_label import Run

LONG = ("recipe.epochs=40", "checkpoint_seconds=0.1")


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
        with RunFolder(tmp_path / "run"), stopping_at_signals(Stop()):
            os.kill(os.getpid(), signal.SIGUSR2)
        pytest.fail("the run went on")
    assert came == [signal.SIGUSR2] and stop.value.code == 128 + signal.SIGUSR2


def test_a_scheduler_may_send_one_signal_after_another(came: list[int]) -> None:
    """SIGUSR2 and later SIGTERM, twice, do not end a step that is being saved."""
    request = Stop()
    with stopping_at_signals(request), request.after_a_step():
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
    assert request.signal == signal.SIGUSR2 and came == []


# -- jobs of a sweep --------------------
def job(outputs: Path, seeds: Sequence[int] = (0, 1)) -> Job:
    tasks = [
        task(["method=rigl", f"seed={seed}", *LONG, f"outputs={outputs}"], Run(f"run {seed}", ""))
        for seed in seeds
    ]
    return Job([each for each in tasks if each], 0, str(outputs / "sweep"), at_once=1)


def compute(job: Job, requeued: Path) -> None:
    """A process whose handler of SIGUSR2 requeues the job and exits, as submitit's does."""

    def requeue(number: int, frame: object) -> None:
        requeued.touch()
        os._exit(7)

    signal.signal(signal.SIGUSR2, requeue)
    job()
    os._exit(0)


def test_a_preempted_job_is_requeued_and_another_one_goes_on_with_its_run(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    """A job waits for a run that another one computes, here until that one is preempted."""
    whole = job(tmp_path, seeds=[0])
    first, second = [
        processes.Process(target=compute, args=(whole, tmp_path / f"{name}-requeued"))
        for name in ("first", "second")
    ]
    first.start()
    until(lambda: [*tmp_path.glob("runs/*/*/*/metrics.jsonl")])
    second.start()
    assert first.pid
    os.kill(first.pid, signal.SIGUSR2)
    first.join(60)
    second.join(60)
    assert (first.exitcode, second.exitcode) == (7, 0)
    assert (tmp_path / "first-requeued").exists() and not (tmp_path / "second-requeued").exists()
    (outcome,) = whole.outcomes("failed")
    assert outcome["status"] == "done"
    log = (Path(outcome["folder"]) / "log.txt").read_text()
    assert "stopped by signal 15 after step" in log and "resumed at step" in log
    again = train("method=rigl", "seed=0", *LONG, outputs=tmp_path / "whole")
    assert_same(Path(outcome["folder"]), again)


def test_runs_that_a_job_did_not_compute_fail_with_the_reason_of_the_job(tmp_path: Path) -> None:
    lost = job(tmp_path)
    write_outcome(lost.folder, 0, {"overrides": ["seed=0"], "status": "done"})
    done, failed = lost.outcomes("job 4711 ended: NODE_FAIL")
    assert done["status"] == "done"
    assert (failed["status"], failed["reason"]) == ("failed", "job 4711 ended: NODE_FAIL")


def test_a_job_has_so_many_runs_and_the_last_one_the_rest(tmp_path: Path) -> None:
    tasks = [*job(tmp_path).tasks] * 3 + [*job(tmp_path).tasks][:1]
    jobs = split(tasks, first=10, folder=str(tmp_path), size=3, at_once=None)
    assert [(each.first, len(each.tasks)) for each in jobs] == [(10, 3), (13, 3), (16, 1)]


@pytest.mark.parametrize(
    "error, state, why",
    [
        ("", "CANCELLED", "job 4_1 ended before its runs were done (CANCELLED). Its log: "),
        ("slurm_load_jobs error: Invalid job id specified", "", "Slurm does not know it any more"),
    ],
)
def test_a_job_that_is_no_longer_queued_has_ended_though_slurm_keeps_no_accounts(
    error: str, state: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs are given up once squeue has said so three times. A controller that does not answer
    ends no job. `squeue -t all` has the states of jobs that ended a short time ago."""
    script = f"""#!/bin/bash
    echo . >> {tmp_path}/asked
    case "$(wc -l < {tmp_path}/asked) $*" in
    "1 "*) echo RUNNING ;;
    "2 "*) echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1 ;;
    *all) echo {state} ;;
    *) echo "{error}" >&2; [ -z "{error}" ] ;;
    esac
    """
    (tmp_path / "squeue").write_text(script)
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "POLL", 0.0)
    paths = SimpleNamespace(result_pickle=tmp_path / "result", stderr=tmp_path / "log.err")
    assert why in slurm.failure(SimpleNamespace(job_id="4_1", paths=paths))
    asked = len((tmp_path / "asked").read_text().splitlines())
    assert asked == 2 + slurm.ANSWERS + 1


def test_a_controller_that_hangs_ends_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "squeue").write_text("#!/bin/bash\nexec sleep 60\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "PATIENCE", 0.1)
    assert slurm.is_queued("4_1")
    assert "squeue -j 4_1: no answer within 0.1 s" in caplog.text
    assert slurm.state(SimpleNamespace(job_id="4_1")) == "squeue: no answer within 0.1 s"


@pytest.mark.parametrize("launcher, package", [("slurm", "submitit"), ("ray", "ray")])
def test_a_launcher_without_its_package_names_the_extra(
    launcher: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # whether it is installed or not
    submit = {"slurm": slurm.submit, "ray": ray.submit}[launcher]
    with pytest.raises(UserError, match=rf"needs {package}: pip install 'dimred\[{launcher}\]'"):
        submit([], {})


# -- a folder that several machines share --------------------
@dataclass
class Machine:
    """What a process on a machine of its own sees of a file system without locks of files. Its
    lease is stale after six heartbeats."""

    name: str
    heartbeat: float = 0.25

    def __call__(self) -> None:
        os.environ["DIMRED_HEARTBEAT"] = str(self.heartbeat)
        lease.machine = lambda: self.name
        fcntl.flock = self.refuse

    def refuse(self, file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def test_a_run_is_computed_on_one_machine_at_a_time(
    start: Callable[..., Command], tmp_path: Path
) -> None:
    command = ("train", "method=dense", "recipe.epochs=100000", f"outputs={tmp_path}")
    first = start(*command, before=Machine("a", heartbeat=1))  # not stale on a busy machine
    until(lambda: list(tmp_path.glob("runs/*/*/*/metrics.jsonl")))
    code, _, err = start(*command, before=Machine("b", heartbeat=1)).wait()
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
    command = ("train", "method=dense", *LONG, f"outputs={tmp_path}")
    first = start(*command, before=Machine("a"))
    until(lambda: list(tmp_path.glob("runs/*/*/*/checkpoint/last.safetensors")))
    os.kill(first.pid, number)
    code, out, err = start(*command, before=Machine("b")).wait()
    assert code == 0 and f"process {first.pid} on" in err and "resumed at step" in err
    if number == signal.SIGSTOP:
        os.kill(first.pid, signal.SIGCONT)
        stopped = first.wait()
        assert stopped.code == 1 and "this run was taken over" in stopped.err
    assert_same(
        Path(out.splitlines()[-1].strip()), train("method=dense", *LONG, outputs=tmp_path / "whole")
    )


def test_a_line_that_is_written_while_a_run_is_taken_over_is_lost(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    first.resume({})
    first.append({"step": 1})
    kept = first.state()
    # in the moment between the look at the lease and the writing
    first.require_held = lambda: second.resume(kept)  # type: ignore[method-assign]
    first.append({"step": 2})
    assert second.metrics.read_text() == '{"step": 1}\n'
