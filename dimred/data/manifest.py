"""The list of the shards that `dimred data prepare` writes to a folder, with their checksums."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from dimred.data.files import damaged_data, reading
from dimred.errors import UserError, counted, listed
from dimred.files import Json, digest_of, write

NAME = "shards.json"


def read_manifest(folder: Path) -> Json | None:
    """{"settings": ..., "planned": names of shards, "shards": {name: {"images", "skipped", "bytes",
    "blake2b"}}}, or None if there is none."""
    path = folder / NAME
    if not path.is_file():
        return None
    with reading(path, ValueError):
        found = json.loads(path.read_bytes())
    shards = found.get("shards") if isinstance(found, dict) else None
    if not isinstance(shards, dict) or not isinstance(found.get("planned"), list):
        raise damaged_data(path, "it has no list of shards")
    for name, entry in shards.items():
        if "/" in name or not isinstance(entry, dict) or not isinstance(entry.get("bytes"), int):
            raise damaged_data(path, f"its entry {name} is none of a shard")
    return found


def write_manifest(folder: Path, manifest: Json) -> None:
    write(folder / NAME, json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")


def is_written(folder: Path, name: str, manifest: Json) -> bool:
    """Whether a shard is complete, by its size."""
    entry, path = manifest["shards"].get(name), folder / name
    return entry is not None and path.is_file() and path.stat().st_size == entry["bytes"]


def require_written(folder: Path) -> None:
    """UserError if shards of an interrupted or damaged preparation are missing."""
    manifest = read_manifest(folder)
    planned = manifest["planned"] if manifest else []
    missing = [name for name in planned if not is_written(folder, name, manifest or {})]
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} of {counted(len(planned), 'shard')} "
            f"({listed(missing)}), or they have another size than they were written with. "
            "Repeat dimred data prepare."
        )


def problems(folder: Path) -> Iterator[tuple[str, str]]:
    """The name of every planned shard, and its fault, or "" if it is intact. Reads all bytes."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(
            f"{folder} has no {NAME}, so there are no checksums. Check a folder that was written "
            "by dimred data prepare."
        )
    for name in manifest["planned"]:
        entry, path = manifest["shards"].get(name), folder / name
        if entry is None or not path.is_file():
            yield name, "missing"
        elif checksum_of(path) != entry.get("blake2b"):
            yield name, "damaged"
        else:
            yield name, ""


def checksum_of(path: Path) -> str:
    found = digest_of()
    with reading(path), open(path, "rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return str(found.hexdigest())
