"""A lease on the folder of a run: a file that its owner renews while it computes.

A lock of a file ends with its process, but on some shared file systems it is unknown to other
machines, or not supported at all. A lease reaches as far as the folder does. Its owner renews it
at every heartbeat, and more often at first. Clocks of different machines are never compared:
another process that wants the run watches whether the file changes. After BEATS heartbeats without
a change the lease is stale, and is taken over. An owner that was suspended or cut off for so long
finds the name of another in the file before its next write, and stops."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from dimred.errors import RunIsBusy, UserError, require, see
from dimred.files import Json, write

NAME = ".lease"
HEARTBEAT = 10.0  # seconds, unless the environment has DIMRED_HEARTBEAT
BEATS = 6  # without a change, until a lease is stale
FIRST = 1 / 20  # of a heartbeat: the first pauses between renewals

log = logging.getLogger(__name__)


class Lease:
    """The lease of this process on a folder.

    progress: what the file says about the run besides its owner, for `dimred status`
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.progress: Callable[[], Json] = dict
        self._over = threading.Event()
        self._beats = 0
        self._owner: Json = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "machine": machine(),
            "token": secrets.token_hex(8),
            "heartbeat": heartbeat(),
            "since": time.time(),
        }
        self._thread = threading.Thread(target=self._renew_often, name="lease", daemon=True)

    def take(self, alone: bool) -> None:
        """Own the folder until `release`. RunIsBusy if another process renews its lease on it.

        alone: no other process of this machine holds the folder, so that one which did has ended
        """
        while not self._created():
            found = read_lease(self.path)
            if found is None:  # released in this moment
                continue
            if alone and found.get("machine") == machine():
                self._write()
                break
            if self._is_stale(found):
                self._write()
                time.sleep(heartbeat())
                self.require()  # of two that take it over at once, the one that wrote last owns it
                break
        self._thread.start()

    def require(self) -> None:
        """RunIsBusy if another process has taken over, so that this one must not write."""
        found = read_lease(self.path)
        if found is None or found.get("token") != self._owner["token"]:
            raise RunIsBusy(
                f"this run was taken over by {owner(found)}, as this process gave no sign for "
                f"{BEATS * heartbeat():g} s: {self.path.parent}. It ends here and writes nothing. "
                f"{see('clusters.md#one-run-one-process')}"
            )

    def release(self) -> None:
        self.progress = dict  # the run, and the memory of its net, may be gone at once
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(RunIsBusy, OSError):
            self.require()
            self.path.unlink()

    def _created(self) -> bool:
        """Whether there was no lease, and now is this one."""
        try:
            with open(self.path, "x") as file:
                file.write(self._content())
        except FileExistsError:
            return False
        return True

    def _is_stale(self, found: Json) -> bool:
        """Watch a lease that was found; False if it is released. RunIsBusy once it is renewed."""
        beat = float(found.get("heartbeat", heartbeat()))
        log.info(
            "%s has a lease on this run. If it gives no sign for %g s, the run goes on here",
            owner(found),
            BEATS * beat,
        )
        end = time.monotonic() + BEATS * beat
        while time.monotonic() < end:
            time.sleep(beat / 4)
            now = read_lease(self.path)
            if now is None:
                return False
            if now != found:
                raise busy(owner(now), self.path.parent)
        return True

    def _renew_often(self) -> None:
        beat = float(self._owner["heartbeat"])
        pause = FIRST * beat
        while not self._over.wait(pause):
            if self.progress is not dict:  # what it says is at most half as old as the training
                pause = min(2 * pause, beat)
            try:
                self.require()
                self._write()
            except RunIsBusy:
                return
            except (UserError, OSError):  # a full disk
                with suppress(OSError):
                    os.utime(self.path)

    def _write(self) -> None:
        self._beats += 1
        write(self.path, self._content().encode())

    def _content(self) -> str:
        return json.dumps({**self._owner, "beats": self._beats, **self.progress()})


def read_lease(path: Path) -> Json | None:
    """A lease, with the time of its last change; None if there is none."""
    try:
        with open(path) as file:  # opening it makes network file systems look at the server
            changed, text = os.fstat(file.fileno()).st_mtime_ns, file.read()
    except OSError:
        return None
    found: Json = {"changed": changed}
    with suppress(ValueError, TypeError):
        found |= json.loads(text)
    return found


def is_renewed(found: Json) -> bool:
    """Whether a lease seems alive, by one look and the clock of this machine. For people: a process
    that wants the run watches instead."""
    here = found.get("machine") == machine()
    if here and not Path(f"/proc/{found.get('process')}").exists() and Path("/proc/self").exists():
        return False
    age = time.time() - found["changed"] / 1e9
    return age < BEATS * float(found.get("heartbeat", heartbeat()))


def owner(found: Json | None) -> str:
    if not found or "process" not in found:
        return "another process"
    return f"process {found['process']} on {found.get('host')}"


def busy(owner: str, folder: Path) -> RunIsBusy:
    return RunIsBusy(
        f"this run is already being computed by {owner}: {folder}. Wait for it, or stop it "
        "and repeat the command to resume it from its last checkpoint. "
        f"{see('clusters.md#one-run-one-process')}"
    )


def heartbeat() -> float:
    """Seconds between two renewals; the same for all processes that share a folder."""
    given = os.environ.get("DIMRED_HEARTBEAT", str(HEARTBEAT))
    seconds = 0.0
    with suppress(ValueError):
        seconds = float(given)
    require(0 < seconds < math.inf, "DIMRED_HEARTBEAT", given, "a number of seconds above 0")
    return seconds


@cache
def machine() -> str:
    """Names the running kernel, within which locks of files reach all processes, and the processes
    that this one can see."""
    with suppress(OSError):
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{kernel}/{os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()
