"""Runs at a URL: read as those in a folder, and never written to."""

from __future__ import annotations

import asyncio
import builtins
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import fsspec
import pytest
from conftest import Outcome
from fsspec.asyn import AsyncFileSystem
from tables import SNIP, put

from dimred.errors import UserError
from dimred.report.pictures.metrics import metrics
from dimred.report.remote import place_of, remote
from dimred.report.rows import results
from dimred.report.runs import Run, find_in, find_runs, newest

LINE = '{"phase": 1, "step": 2, "epoch": 1.0, "train_loss": 0.5}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run, an unfinished one and a damaged one."""
    (put(tmp_path / "runs", SNIP, 0, test_accuracy=0.75) / "metrics.jsonl").write_text(LINE)
    put(tmp_path / "runs", SNIP, 1)
    put(tmp_path / "runs", SNIP, 2, test_accuracy=0.5).joinpath("config.yaml").write_text("seed: [")
    return tmp_path / "runs"


@pytest.fixture(params=["file", "zip", "memory"])
def url(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> str:
    """The same runs at a URL."""
    if request.param == "file":
        return f"file://{folder}"
    if request.param == "zip":
        shutil.make_archive(str(tmp_path / "runs"), "zip", tmp_path, "runs")
        return f"zip://runs::file://{tmp_path}/runs.zip"
    system = fsspec.filesystem("memory")
    system.put(str(folder), f"{tmp_path}/runs", recursive=True)
    return f"memory:/{tmp_path}/runs"


def test_runs_at_a_url_are_those_of_the_folder(folder: Path, url: str) -> None:
    here, there = find_runs(folder), find_runs(remote(url))
    assert [run.state for run in there] == ["done", "unfinished", "damaged"]
    for one, other in zip(here, there, strict=True):
        assert (one.seed, one.description, one.result) == (
            other.seed,
            other.description,
            other.result,
        )
        assert one.folder.name == other.folder.name
        assert str(other.folder).startswith(url.partition("::")[0])
    assert there[0].result["test_accuracy"] == 0.75
    assert metrics(there[0].folder).numbers["train_loss"][0] == 0.5
    assert [row["test_accuracy"] for row in results(url) if row["state"] == "done"] == [0.75]


def test_the_name_of_a_run_at_a_url_leads_to_it(url: str) -> None:
    for run in find_runs(remote(url)):
        assert [each.seed for each in find_runs(place_of(str(run.folder)))] == [run.seed]


def test_runs_of_folders_and_urls_are_read_together(folder: Path, url: str) -> None:
    done = [run for run in find_in([folder, remote(url), remote(url)]) if run.state == "done"]
    assert len(done) == 2
    assert isinstance(newest(done), Run)


# -- a web server --------------------
class Pages(AsyncFileSystem):
    """Folders as the pages of a web server list them; that of fsspec itself needs aiohttp."""

    protocol = "pages"

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[dict[str, Any]]:
        page = await asyncio.to_thread(self.fetch, f"http://{path}/")
        return [
            {
                "name": f"{path}/{name.rstrip('/')}",
                "type": "directory" if name.endswith("/") else "file",
            }
            for name in re.findall('href="(.*?)"', page.decode())
        ]

    async def _cat_file(self, path: str, *_: Any, **__: Any) -> bytes:
        return await asyncio.to_thread(self.fetch, f"http://{self._strip_protocol(path)}")

    def fetch(self, url: str) -> bytes:
        try:
            with urlopen(url) as response:
                return bytes(response.read())
        except HTTPError as error:
            error.close()
            raise (FileNotFoundError if error.code == 404 else OSError)(str(error)) from None


class Server(ThreadingHTTPServer):
    """Serves a folder. asked: the paths of all requests. refused: a path, and the answer to it."""

    request_queue_size = 128

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.refused = ("", 0)
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))


class Handler(SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path, code = self.server.refused
        if path and self.path.strip("/") == path:
            self.send_error(code)
        else:
            super().do_GET()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    fsspec.register_implementation("pages", Pages, clobber=True)
    with Server(folder.parent) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def url_of(server: Server) -> str:
    return f"pages://127.0.0.1:{server.server_port}/runs"


def test_each_folder_and_file_of_a_web_server_is_asked_for_once(
    server: Server, folder: Path
) -> None:
    there = find_runs(remote(url_of(server)))
    assert [run.key for run in there] == [run.key for run in find_runs(folder)]
    assert [len(metrics(run.folder).steps) for run in there] == [1, 0, 0]
    read = {"config.yaml", "result.json", "metrics.jsonl"}
    paths = [path.relative_to(folder.parent) for path in (folder, *folder.rglob("*"))]
    expected = [f"/{path}" for path in paths if path.name in read]
    expected += [f"/{path}/" for path in paths if (folder.parent / path).is_dir()]
    assert sorted(server.asked) == sorted(expected)


def test_a_folder_that_a_server_refuses_is_an_error_and_leaves_no_runs_out(
    server: Server, folder: Path
) -> None:
    refused = sorted(folder.rglob("config.yaml"))[1].parent
    server.refused = str(refused.relative_to(folder.parent)), 403
    with pytest.raises(UserError, match=r"runs cannot be read \(HTTP Error 403: Forbidden\)"):
        remote(url_of(server))
    server.refused = str(refused.relative_to(folder.parent)), 404  # removed in this moment
    assert len(find_runs(remote(url_of(server)))) == 2


def test_tables_and_lists_read_a_url(
    url: str, tiny: str, dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    if url.startswith("memory"):  # a process has its own
        return
    outcome = dimred("table", tiny, "--runs", url)
    assert outcome.code == 0 and "75.00 (1 of 2)" in outcome.out
    assert f"outputs={url}" not in outcome.out
    outcome = dimred("runs", url)
    assert outcome.code == 0 and "3 runs: 1 done, 1 unfinished, 1 damaged" in outcome.out


@pytest.mark.parametrize("command", ["train", "reproduce", "plot"])
def test_nothing_is_written_to_a_url(
    command: str, tiny: str, dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    arguments = {
        "train": ["train", "outputs=s3://bucket/outputs"],
        "reproduce": ["reproduce", tiny, "outputs=s3://bucket/outputs"],
        "plot": ["plot", "--out", "s3://bucket/outputs"],
    }
    outcome = dimred(*arguments[command])
    assert outcome.code == 1 and "s3://bucket/outputs is a URL, and dimred writes to" in outcome.err


def test_a_url_without_runs_or_with_an_unknown_protocol_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder file:///nowhere/at/all"):
        find_runs(place_of("file:///nowhere/at/all"))
    with pytest.raises(UserError, match=r"nonsense://x cannot be read .*nonsense"):
        place_of("nonsense://x")


def test_the_reason_why_a_url_cannot_be_read_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str) -> None:
        raise OSError("no library\n in /usr/lib, " + "/usr/lib/many, " * 1000)

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(UserError, match=r"\(no library in /usr/lib, .*\.\.\.\)") as error:
        place_of("hdfs://host/runs")
    assert len(str(error.value)) < 450


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"s3fs", "fsspec"}
    imported = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] in absent:
            raise ImportError(f"No module named {name!r}")
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"needs fsspec.*pip install 'dimred\[fsspec\]'$"):
        place_of("file:///tmp")
    absent.remove("fsspec")
    for url in ("s3://bucket/runs", "zip://runs::s3://bucket/runs.zip"):
        with pytest.raises(UserError, match=r"needs another package .*pip install s3fs$"):
            place_of(url)
