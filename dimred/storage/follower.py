"""The folder of a run, for a process that computes the run together with the one that writes."""

from __future__ import annotations

from pathlib import Path

from dimred.files import Json
from dimred.net.state import State
from dimred.storage.folder import RunFolder


class Follower(RunFolder):
    """Reads and writes nothing: another process holds the folder."""

    writes = False

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def append(self, line: Json) -> None:
        pass

    def resume(self, state: Json) -> None:
        pass

    def write_tensors(self, path: Path, tensors: State, about: Json | None = None) -> None:
        pass

    def write_config(self, yaml: str) -> None:
        pass

    def write_result(self, result: Json) -> None:
        pass

    def forget_checkpoint(self) -> None:
        pass
