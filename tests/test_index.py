"""Reading many runs with the index of their configurations, which never shows what was before."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import processes
from tables import SNIP, put

from dimred.report.index import FEW, index_file
from dimred.report.runs import find_runs

MANY = FEW + 10


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Finished runs of the seeds 0, 1, ..., read once; run i has an accuracy of i / 1000."""
    monkeypatch.setenv("DIMRED_CACHE", str(tmp_path / "cache"))
    config = (put(tmp_path / "one", SNIP) / "config.yaml").read_text()
    for seed in range(MANY):
        folder = tmp_path / "runs" / f"{seed:03}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(config.replace("\nseed: 0\n", f"\nseed: {seed}\n"))
        (folder / "result.json").write_text(
            json.dumps({"status": "done", "test_accuracy": seed / 1000})
        )
    assert not index_file().exists()
    assert seeds(tmp_path / "runs") == list(range(MANY))
    assert index_file().exists()
    return tmp_path / "runs"


def seeds(folder: Path) -> list[int]:
    return [run.seed for run in find_runs(folder)]


def read_with(cache: str, folder: Path) -> None:
    """In another process, which may have an older environment."""
    os.environ["DIMRED_CACHE"] = cache
    seeds(folder)


def replace_unnoticed(path: Path, old: str, new: str) -> None:
    """Change a file in place without changing its size or its times."""
    text, before = path.read_text(), path.stat()
    assert old in text and len(old) == len(new)
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_runs_are_what_their_folders_say_with_an_index_of_what_they_said(many: Path) -> None:
    replace_unnoticed(many / "000/config.yaml", "seed: 0", "seed: 7")
    replace_unnoticed(many / "001/config.yaml", "sparsity: 0.5", "sparsity: 0.6")
    replace_unnoticed(many / "002/result.json", "0.002", "0.777")
    (many / "003/result.json").unlink()
    for path in (many / "004").iterdir():
        path.unlink()
    (many / "004").rmdir()
    (many / "005").rename(many / "999")
    runs = {run.folder.name: run for run in find_runs(many)}
    assert runs["000"].seed == 7 and runs["000"].state == "done"
    assert [runs[name].description["method"]["sparsity"] for name in ("001", "002")] == [0.6, 0.5]
    assert runs["002"].result["test_accuracy"] == 0.777
    assert runs["003"].state == "unfinished" and not runs["003"].result
    assert "004" not in runs and "005" not in runs and runs["999"].seed == 5
    (many / "003/result.json").write_text('{"status": "failed", "reason": "nan"}')
    assert next(run for run in find_runs(many) if run.folder.name == "003").why == "nan"


def test_what_an_index_has_is_not_parsed_again(many: Path) -> None:
    """Seen by what it says: an index with another value, and a right checksum, is believed."""
    from dimred.report.index import checksum_of

    content = index_file().read_bytes().partition(b"\n")[2].replace(b'"seed": 3,', b'"seed": 4,')
    index_file().write_bytes(checksum_of(content) + b"\n" + content)
    assert seeds(many)[:5] == [0, 1, 2, 4, 4]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[:-1],
        lambda text: text.replace(b'"seed": 3,', b'"seed": 4,'),
        lambda text: b"\xff" + text,
        lambda text: text.partition(b"\n")[0] + b"\n[]",
    ],
)
def test_a_damaged_index_is_made_again_in_silence(
    many: Path, damage: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    whole = index_file().read_bytes()
    index_file().write_bytes(damage(whole))
    assert seeds(many) == list(range(MANY))
    assert index_file().read_bytes() == whole
    assert capfd.readouterr() == ("", "")


def test_runs_are_read_where_no_index_can_be_written(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIMRED_CACHE", str(many / "000/config.yaml"))
    assert seeds(many) == list(range(MANY))


def test_several_processes_may_write_the_index_at_once(many: Path) -> None:
    whole = index_file().read_bytes()
    index_file().unlink()
    cache = os.environ["DIMRED_CACHE"]
    readers = [processes.Process(target=read_with, args=(cache, many)) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
        assert reader.exitcode == 0
    assert index_file().read_bytes() == whole
    assert [path.name for path in index_file().parent.iterdir()] == [index_file().name]


def test_values_that_json_would_change_are_not_in_the_index(many: Path) -> None:
    """A date, a key that is a number, and nan: as YAML has them, each time."""
    for name, text in (("a", "when: 2020-01-01"), ("b", "1: one"), ("c", "loss: .nan")):
        path = many / name / "config.yaml"
        path.parent.mkdir()
        path.write_text((many / "000/config.yaml").read_text() + f"include: [{name}]\n{text}\n")
    index_file().unlink()
    first, second = find_runs(many)[-3:], find_runs(many)[-3:]
    assert str(first) == str(second)
    assert b"2020" not in index_file().read_bytes() and b"NaN" not in index_file().read_bytes()
