"""An index of configurations: what the config.yaml of many runs say, parsed before.

Parsing YAML takes four fifths of the time in which runs are read. So where there are many, what
their texts say is kept in one file of the cache, by a hash of each text. Every folder is still read
each time, and the meaning of a text never changes: the index cannot be out of date. It may be
deleted at any time. Several processes may write it, each a whole file; the last one stays.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from dimred.errors import UserError
from dimred.files import digest_of, write
from dimred.report.compose import Json, parse_yaml

#: so many are parsed in a tenth of a second: not worth a file
FEW = 200
#: the most that the file keeps, unless one folder has more
MOST = 30_000
#: part of every hash: changes when the same text is to be read to other values
FORMAT = b"1"


class Index:
    """Parses configurations; those with the same text share one object, not to be changed."""

    def __init__(self) -> None:
        self.kept: dict[str, Json] = {}  # from the file
        self.used: dict[str, Json] = {}
        self.new = 0

    def parse(self, text: bytes, name: object) -> Any:
        """What the text says. UserError, with the name of the file, if it is not YAML."""
        digest = digest_of(FORMAT + text).hexdigest()
        if digest in self.used:
            return self.used[digest]
        if (found := self.kept.get(digest)) is None:
            found = parse_yaml(text, name)
            if not survives_json(found):
                return found
            self.new += 1
        self.used[digest] = found
        return found

    def load(self, path: Path) -> None:
        """Read the file. A damaged one, or none, is an empty one."""
        with suppress(OSError, ValueError, RecursionError):
            checksum, _, content = path.read_bytes().partition(b"\n")
            if checksum == checksum_of(content):
                self.kept = json.loads(content)

    def save(self, path: Path) -> None:
        """Write the file: what was used now, then what was used earlier."""
        entries = islice((self.used | self.kept).items(), max(MOST, len(self.used)))
        content = json.dumps(dict(entries)).encode()
        with suppress(UserError):  # where the cache cannot be written, nothing is kept
            write(path, checksum_of(content) + b"\n" + content)


@contextmanager
def index_for(runs: int) -> Iterator[Index]:
    """The index with which to read so many runs. It is written if much is new."""
    index = Index()
    if runs > FEW:
        index.load(path := index_file())
    yield index
    if index.new > FEW:
        index.save(path)


def index_file() -> Path:
    folder = os.environ.get("DIMRED_CACHE") or os.path.expanduser("~/.cache/dimred")
    return Path(folder) / "configurations.json"


def checksum_of(content: bytes) -> bytes:
    return digest_of(content).hexdigest().encode()


def survives_json(value: Any) -> bool:
    """Whether JSON gives back what YAML has read: not dates, nan or numbers as keys."""
    try:
        return isinstance(value, dict) and json.loads(json.dumps(value)) == value
    except (TypeError, ValueError, RecursionError):
        return False
