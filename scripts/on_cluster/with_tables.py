"""`dimred reproduce` on a one-node Slurm, and on Ray where it is installed: a command that is
interrupted, a job that is cancelled, and two people who fill one table."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import sweeps
import tables
import with_ray
from with_slurm import needs, one_node

__all__ = ["needs", "run"]

LAUNCHER = (
    *("--launcher", "slurm", "hydra.launcher.partition=low"),
    *("hydra.launcher.runs_per_job=2", "hydra.launcher.n_jobs=1"),
)


def run(folder: Path) -> None:
    reference = tables.reference(folder.parent)
    with one_node(folder):
        for what in (interrupted, shared):
            check(what, folder, reference)
    if not with_ray.needs():
        check(on_ray, folder, reference)


def check(what: Callable[[Path], str], folder: Path, reference: Path) -> None:
    outputs = folder / what.__name__
    print(f"table, {what.__name__}: {what(outputs)}", flush=True)
    tables.require_same(outputs, reference)
    print(f"table, {what.__name__}: the same bits as one after the other", flush=True)


def interrupted(outputs: Path) -> str:
    """Ctrl-C while the command waits; the same command again, of which a job is cancelled; and
    again."""
    first = tables.start(*LAUNCHER, outputs=outputs, name="first")
    sweeps.until(sweeps.begun(outputs, 2))
    first.send_signal(signal.SIGINT)
    assert first.wait() == 130, (outputs / "first").read_text()
    assert "the jobs of Slurm go on" in (outputs / "first").read_text()
    second = tables.start(*LAUNCHER, outputs=outputs, name="second")
    cancel(job_of(outputs / "first"))
    sweeps.until(lambda: "R" in states(job_of(outputs / "second")))
    cancelled = f"{job_of(outputs / 'second')}_1"
    sweeps.until(lambda: "R" in states(cancelled))
    cancel(cancelled)
    assert second.wait(300) == 1, (outputs / "second").read_text()
    assert f"job {cancelled} ended" in (outputs / "second").read_text()
    third = tables.start(*LAUNCHER, outputs=outputs, name="third")
    sweeps.ended(third, outputs, "third")
    stopped, resumed = sweeps.count(outputs, "stopped by"), sweeps.count(outputs, "resumed at")
    return f"{stopped} runs were stopped and saved, {resumed} resumed"


def shared(outputs: Path) -> str:
    """One command computes here, another one on the cluster; every run is computed once."""
    here = tables.start(outputs=outputs, name="here")
    there = tables.start(*LAUNCHER, outputs=outputs, name="there")
    sweeps.ended(here, outputs, "here")
    sweeps.ended(there, outputs, "there")
    for folder in sweeps.folders(outputs):
        log = (folder / "log.txt").read_text()
        assert log.count("epoch 1 of") == 1 and "resumed" not in log, log
    return "every run was computed once"


def on_ray(outputs: Path) -> str:
    """Ctrl-C while the command waits, which ends its jobs; then the same command, and one that
    computes here."""
    launcher = ("--launcher", "ray", "hydra.launcher.address=local")
    first = tables.start(*launcher, outputs=outputs, name="first")
    sweeps.until(sweeps.begun(outputs, 2))
    first.send_signal(signal.SIGINT)
    assert first.wait() == 130, (outputs / "first").read_text()
    here = tables.start(outputs=outputs, name="here")
    there = tables.start(*launcher, outputs=outputs, name="there")
    sweeps.ended(here, outputs, "here")
    sweeps.ended(there, outputs, "there")
    return f"{sweeps.count(outputs, 'resumed at')} runs were resumed"


def job_of(printed: Path) -> str:
    """The number of the job, once the command has submitted it."""
    sweeps.until(lambda: re.search(r"job \d+ of Slurm", printed.read_text()))
    return re.findall(r"job (\d+) of Slurm", printed.read_text())[0]


def states(job: str) -> list[str]:
    listing = subprocess.run(
        ["squeue", "-h", "-j", job, "-o", "%t"], capture_output=True, text=True
    )
    return listing.stdout.split()


def cancel(job: str) -> None:
    subprocess.run(["scancel", job], check=True)
