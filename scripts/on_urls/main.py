"""Reports on runs at URLs, with real servers on this machine: see scripts/urls.

Prints what each command asks the servers for, and how long it takes where every answer takes 50 ms;
then what it says of mistakes. The answers on runs in a folder are the reference."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar
from urllib.request import Request, urlopen

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import folders

NEEDED = {"aiohttp": "aiohttp", "s3fs": "s3fs", "moto": "moto[server]"}
SECONDS = 0.05  # until a server answers
BUCKET = "runs-of-dimred"


class Slow(SimpleHTTPRequestHandler):
    """Answers late, and refuses what lies below `private`."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        time.sleep(SECONDS)
        if self.path.startswith("/private"):
            return self.send_error(403)
        return super().do_GET()

    def log_message(self, *_: Any) -> None: ...


class Server(ThreadingHTTPServer):
    request_queue_size = 128


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    count = parser.parse_args().count
    missing = [package for name, package in NEEDED.items() if not find_spec(name)]
    if missing:
        print(f"not run: pip install {' '.join(missing)}")
        return 1
    with tempfile.TemporaryDirectory() as place:
        outputs = Path(place)
        os.environ["DIMRED_CACHE"] = str(outputs / "cache")
        folders.make(outputs, count)
        files = sum(1 for path in (outputs / "runs").rglob("*") if path.is_file())
        inside = sum(1 for path in (outputs / "runs").rglob("*") if path.is_dir())
        print(f"{count} runs: {files} files in {inside} folders\n")
        with web(outputs) as url:
            compare(outputs, f"{url}/runs", Slow.asked)
            say_of(f"{url}/nowhere", f"{url}/private", "http://127.0.0.1:9/runs")
            say_of("http://nowhere.invalid/runs")
        with store(outputs) as asked:
            compare(outputs, f"s3://{BUCKET}/runs", asked)
            say_of(f"s3://{BUCKET}/nowhere", "s3://no-such-bucket/runs")
            require_rights()
            say_of(f"s3://{BUCKET}/runs")
        say_of(f"s3://{BUCKET}/runs")  # nobody answers
    return 0


@contextmanager
def web(folder: Path) -> Iterator[str]:
    handler = partial(Slow, directory=str(folder))
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def compare(outputs: Path, url: str, asked: list[str]) -> None:
    """Commands that read runs print the same of a URL as of the folder."""
    print(f"{url}\n\n| command | requests | seconds | in the folder |\n|---|---|---|---|")
    commands = [["table", "survey_digits", "--runs"], ["runs", "--format", "csv", "--runs"]]
    pictures = ["plot", "curves", "--out", str(outputs / "pictures"), "--runs"]
    for command in (*commands, pictures):
        asked.clear()
        here, seconds_here = printed(*command, str(outputs / "runs"))
        there, seconds = printed(*command, url)
        assert without_places(there, url) == without_places(here, str(outputs / "runs")), there
        name = " ".join(command[:2])
        print(f"| `dimred {name}` | {len(asked)} | {seconds:.1f} | {seconds_here:.1f} |")
    print()


def printed(*command: str) -> tuple[str, float]:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "dimred", *command], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, time.perf_counter() - began


def without_places(text: str, place: str) -> str:
    return re.sub(r"outputs=\S+ ?|written in .*", "", text.replace(place, "RUNS"))


def say_of(*urls: str) -> None:
    """Print what `dimred runs` says of URLs that cannot be read."""
    for url in urls:
        began = time.perf_counter()
        command = [sys.executable, "-m", "dimred", "runs", "--runs", url]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        print(f"{url}: {done.stderr.strip()} ({time.perf_counter() - began:.1f} s)\n", flush=True)


@contextmanager
def store(outputs: Path) -> Iterator[list[str]]:
    """An S3 of this machine with the runs in a bucket; what it is asked for."""
    import s3fs
    from moto.server import ThreadedMotoServer
    from werkzeug.serving import WSGIRequestHandler

    asked: list[str] = []

    def note(handler: WSGIRequestHandler, *_: Any) -> None:
        asked.append(handler.path)
        time.sleep(SECONDS)

    WSGIRequestHandler.log_request = note  # type: ignore[method-assign]
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    try:
        files = s3fs.S3FileSystem()
        files.mkdir(BUCKET)
        files.put(str(outputs / "runs"), f"{BUCKET}/runs", recursive=True)
        yield asked
    finally:
        server.stop()


def require_rights() -> None:
    """From now on, the server answers those alone who have keys."""
    url = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    urlopen(Request(url, data=b"0", headers={"Content-Type": "text/plain"})).close()


if __name__ == "__main__":
    sys.exit(main())
