"""Downloads from hosts that do not answer: an error within seconds, and what is in a cache is
used."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from dimred import network
from dimred.data.arrow import load
from dimred.data.files import fetch
from dimred.errors import UserError
from dimred.models import torchvision

CLOSED = "http://127.0.0.1:9"


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a host that accepts connections and never answers."""
    monkeypatch.setattr(network, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_host_that_never_answers_is_given_up_after_seconds(silent: str, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match=rf"{silent}/a: .*timed out|no answer.*put it there"):
        fetch(tmp_path / "a", [f"{silent}/a", f"{silent}/b"], "", "put it there")
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("url", ["http://{}/a", "http://user:word@{}/my runs/ü?a=b c#d"])
def test_a_host_that_knows_no_head_requests_has_answered(url: str) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.handle_request, daemon=True).start()
        assert not network.no_answer(url.format(f"127.0.0.1:{server.server_port}"))


def test_weights_of_torchvision_do_not_wait_for_a_host(
    silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", silent)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"Cannot load torchvision's resnet18 .*put it at"):
        torchvision(
            shape=(3, 32, 32),
            classes=10,
            name="resnet18",
            init="torch_default",
            pretrained="DEFAULT",
        )
    assert time.monotonic() - start < 3


def test_the_hub_is_not_asked_again_and_again(tmp_path: Path) -> None:
    """Its libraries alone would wait for 23 seconds."""
    command = [sys.executable, "-m", "dimred", "train", "dataset=huggingface"]
    unreachable = {**os.environ, "HF_ENDPOINT": CLOSED, "HF_HOME": str(tmp_path)}
    start = time.monotonic()
    done = subprocess.run(
        [*command, "dataset.path=no/such"],
        cwd=tmp_path,
        env=unreachable,
        capture_output=True,
        text=True,
    )
    assert time.monotonic() - start < 15  # most of it for imports
    assert f"{CLOSED} cannot be reached: " in done.stderr
    assert "Correct the path or the name, or load it once" in done.stderr


def test_a_set_in_the_cache_needs_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", CLOSED)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    features = Features({"image": Value("binary"), "label": ClassLabel(names=["a", "b"])})
    rows = Dataset.from_dict({"image": [b"1", b"2"], "label": [0, 1]}, features=features)
    rows.to_parquet(tmp_path / "made.parquet")
    load(str(tmp_path / "made.parquet"))
    (made,) = tmp_path.glob("parquet/*/*/*/parquet-train.arrow")
    cached = tmp_path / "some___set/default/0.0.0/abc"
    shutil.copytree(made.parent, cached)
    (cached / made.name).rename(cached / "set-train.arrow")
    assert load("some/set")["train"]["label"][:] == [0, 1]
