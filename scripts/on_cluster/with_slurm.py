"""A sweep on a one-node Slurm: preempted, out of time, and on a node that dies."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sweeps

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
ONE_NODE = str(Path(__file__).with_name("one-node-slurm"))
LAUNCHER = ("hydra/launcher=slurm", "hydra.launcher.partition=low", "hydra.launcher.runs_per_job=2")


def needs() -> str:
    """What is missing; empty if nothing is."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        return f"{', '.join(missing)} (Debian: apt-get install slurm-wlm munge)"
    if not importlib.util.find_spec("submitit"):
        return "submitit: pip install 'dimred[slurm]'"
    return "" if os.geteuid() == 0 else "root, to start Slurm's daemons"


def run(folder: Path) -> None:
    reference = sweeps.reference(folder.parent)
    with one_node(folder):
        for what in (preempted, out_of_time, node_dies):
            outputs = folder / what.__name__
            print(f"slurm, {what.__name__}: {what(folder, outputs)}", flush=True)
            require_calm_end(outputs)
            sweeps.require_same(outputs, reference)
            print(f"slurm, {what.__name__}: the same bits as one after the other", flush=True)


@contextmanager
def one_node(folder: Path) -> Iterator[None]:
    """A Slurm of this machine alone, whose files are in the folder."""
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    folder.mkdir()
    try:
        subprocess.run([ONE_NODE, "start", str(folder)], check=True)
        yield
    finally:
        subprocess.run([ONE_NODE, "stop", str(folder)])


def preempted(folder: Path, outputs: Path) -> str:
    """A job of higher priority takes the whole node; afterwards the jobs go on."""
    process = sweeps.start(*LAUNCHER, "hydra.launcher.n_jobs=1", outputs=outputs)
    sweeps.until(sweeps.begun(outputs, 2))
    script = ["sbatch", "--wait", "--partition=high", "--exclusive", "--wrap=true"]
    subprocess.run([*script, f"--output={folder}/high"], check=True, stdout=subprocess.DEVNULL)
    finish(process, outputs)
    return stops(outputs)


def out_of_time(folder: Path, outputs: Path) -> str:
    """The time limit is a minute, and 55 seconds before it jobs save their runs."""
    limits = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=55")
    process = sweeps.start(*LAUNCHER, *limits, "hydra.launcher.n_jobs=1", outputs=outputs)
    finish(process, outputs)
    return stops(outputs)


def node_dies(folder: Path, outputs: Path) -> str:
    """All processes of the node are killed, its daemon among them, which is started again."""
    process = sweeps.start(*LAUNCHER, "hydra.launcher.n_jobs=1", outputs=outputs)
    sweeps.until(sweeps.begun(outputs, 2))
    kill_node()
    lost = sweeps.lost_seconds(outputs)
    subprocess.run([ONE_NODE, "node", str(folder)], check=True)
    finish(process, outputs)
    assert lost <= sweeps.CHECKPOINT_SECONDS + 1, lost
    resumed = sweeps.count(outputs, "resumed at step")
    return f"{lost:.1f} s of training lost at most, {resumed} runs were resumed"


def kill_node() -> None:
    """SIGKILL to the daemon of the node, those of its jobs, and all that these have started."""
    conf = f"SLURM_CONF={os.environ['SLURM_CONF']}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().split(b"\0")
            name = (path / "comm").read_text().strip()
        except OSError:
            continue
        of_a_job = any(each.startswith(b"SLURM_JOB_ID=") for each in environment)
        if conf in environment and (of_a_job or name in ("slurmd", "slurmstepd")):
            os.kill(int(path.name), signal.SIGKILL)


def finish(process: subprocess.Popen[bytes], outputs: Path) -> None:
    """Wait for the sweep. Slurm starts a requeued job after two minutes; here it starts after 5 to
    10 seconds, for Slurm refuses one that starts at once."""
    earlier: set[str] = set()

    def over() -> bool:
        listing = subprocess.run(
            ["squeue", "-h", "-t", "PD", "-o", "%A"], capture_output=True, text=True
        )
        pending = set(listing.stdout.split())
        for number in pending & earlier:
            release = ["scontrol", "update", f"jobid={number}", "starttime=now"]
            subprocess.run(release, capture_output=True)
        earlier.clear()
        earlier.update(pending)
        time.sleep(5)
        return process.poll() is not None

    sweeps.until(over, 600)
    sweeps.ended(process, outputs)


def stops(outputs: Path) -> str:
    stopped = sweeps.count(outputs, "stopped by signal")
    assert stopped, "no run was stopped"
    return f"{stopped} runs were stopped and saved, {sweeps.count(outputs, 'resumed at')} resumed"


def require_calm_end(outputs: Path) -> None:
    """No job has a traceback in its log."""
    for path in outputs.glob("sweeps/*/jobs/*.err"):
        assert "Traceback" not in path.read_text(), path.read_text()
