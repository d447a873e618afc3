"""The folder of a run. Files are written under a temporary name and renamed, so a reader or a
resumed run finds the old one or the new one, whole. Only metrics.jsonl grows in place, line by
line."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import IO

from dimred.errors import UserError
from dimred.files import Json, digest_of, write
from dimred.net.state import State
from dimred.storage.lease import Lease, busy
from dimred.storage.tensors import damaged_run_file, read_about, write_tensors

TEMPORARY = re.compile(r"[.].+[.]\d+")  # as `write` names them: .result.json.4711


class RunFolder:
    """The folder of one run, held by one process at a time: by a lock among those of a machine, by
    a lease among all that share the file system.

    config.yaml  metrics.jsonl  result.json  model.safetensors  masks.npz  checkpoint/  log.txt
    """

    writes = True  # false in those processes of a run that leave it to another (follower.py)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint" / "last.safetensors"
        self.metrics = path / "metrics.jsonl"
        # fingerprints of what the run reads (runs/inputs.py); checkpoints store them
        self.inputs: Json = {}
        self._written = digest_of()  # the checksum of metrics.jsonl
        self._lock: IO[str] | None = None
        self._lease: Lease | None = None

    def __enter__(self) -> RunFolder:
        """Hold the folder until the block or the process ends. RunIsBusy if another process holds
        it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # not truncated yet: a process that holds the lock has written its name into it
            lock = open(self.path / ".lock", "a+")
        except OSError as error:
            raise UserError(
                f"cannot write to {self.path} ({error.strerror}). Choose another folder with "
                "outputs=..., or make this one writable"
            ) from None
        self._lease, self._lock = Lease(self.path), lock
        try:
            self._lease.take(alone=self.locked(lock))
        except BaseException:
            lock.close()
            raise
        self.remove_temporaries()
        return self

    def locked(self, lock: IO[str]) -> bool:
        """Lock a file, and write this process into it; whether the file system has locks. RunIsBusy
        if another process has locked it."""
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise busy(lock.read() or "another process", self.path) from None
        except OSError:
            return False
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        return True

    def require_held(self) -> None:
        """RunIsBusy if another process has taken the folder over. For before every write."""
        if self._lease:
            self._lease.require()

    def tell(self, progress: Callable[[], Json]) -> None:
        """Let the lease say how far the run is, for `dimred status`."""
        if self._lease:
            self._lease.progress = progress

    def __exit__(self, *exc: object) -> None:
        if self._lease:
            self._lease.release()
        if self._lock:
            self.remove_if_empty()  # while no other process can write into it
            self._lock.close()  # this releases the lock

    def remove_if_empty(self) -> None:
        """Remove the folder if the run has written nothing."""
        if [each.name for each in self.path.glob("*")] == [".lock"]:
            (self.path / ".lock").unlink()
            self.path.rmdir()

    def remove_temporaries(self) -> None:
        """Remove the half-written files of killed processes. No other process writes into a locked
        folder."""
        for path in (*self.path.glob(".*"), *self.checkpoint.parent.glob(".*")):
            if TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def snapshot(self, phase: int) -> Path:
        return self.checkpoint.with_name(f"snapshot-{phase}.safetensors")

    def append(self, line: Json) -> None:
        """Add a line to metrics.jsonl."""
        text = json.dumps(line).encode() + b"\n"
        self._written.update(text)
        with open(self.metrics, "ab") as file:
            # Only now: who takes the run over after this replaces the file, and the line is lost.
            self.require_held()
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # before a checkpoint that states its length

    def state(self) -> Json:
        """What a checkpoint stores about metrics.jsonl and the inputs of the run."""
        return {
            "metrics_bytes": self.size(),
            "metrics_checksum": self._written.hexdigest(),
            "inputs": self.inputs,
        }

    def resume(self, state: Json) -> None:
        """Truncate metrics.jsonl to what it was at `state()` ({}: at the start); later lines are
        computed again. UserError if earlier lines have changed."""
        self.require_held()
        size = state.get("metrics_bytes", 0)
        if self.size() < size:
            raise damaged_run_file(
                self.metrics, f"{self.size()} of {size} bytes are left", self.checkpoint.parent
            )
        kept = self.metrics.read_bytes()[:size] if size else b""
        self._written = digest_of(kept)
        if state.get("metrics_checksum", self._written.hexdigest()) != self._written.hexdigest():
            raise damaged_run_file(self.metrics, "its lines have changed", self.checkpoint.parent)
        # not truncated: a process that lost the run may still have the old file open
        write(self.metrics, kept)

    def recorded_inputs(self, result: Json | None) -> Json:
        """The fingerprints of inputs in the result of a finished run, else in the checkpoint."""
        if result and result["status"] == "done":
            return result.get("inputs", {})
        return read_about(self.checkpoint).get("inputs", {}) if self.checkpoint.exists() else {}

    def size(self) -> int:
        """Bytes of metrics.jsonl."""
        return self.metrics.stat().st_size if self.metrics.exists() else 0

    def write_tensors(self, path: Path, tensors: State, about: Json | None = None) -> None:
        """Write a checkpoint or a snapshot."""
        self.require_held()
        write_tensors(path, tensors, about)

    def write_config(self, yaml: str) -> None:
        """Write config.yaml, the first file of a run."""
        self.require_held()
        write(self.path / "config.yaml", yaml.encode())

    def has_config(self) -> bool:
        return (self.path / "config.yaml").exists()

    def result(self) -> Json | None:
        """The result of the run, if it has one (status "done" or "failed")."""
        path = self.path / "result.json"
        return read_result(path) if path.exists() else None

    def write_result(self, result: Json) -> None:
        self.require_held()
        write(self.path / "result.json", json.dumps(result, indent=2).encode() + b"\n")

    def forget_checkpoint(self) -> None:
        self.require_held()
        shutil.rmtree(self.checkpoint.parent, ignore_errors=True)


def read_result(path: Path) -> Json:
    try:
        result = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError) as error:
        raise damaged_run_file(path, error, path) from None
    if not isinstance(result, dict) or result.get("status") not in ("done", "failed"):
        raise damaged_run_file(path, "it is no result", path)
    return result
