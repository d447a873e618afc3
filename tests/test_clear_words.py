"""Error messages for bad values, damaged files, full disks, terminals and killed processes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import SCRIPT, Command, Outcome, until

from dimred.errors import UserError, counted, numbered
from dimred.files import write
from dimred.report.runs import read_run
from dimred.storage.folder import RunFolder
from dimred.storage.masks import read_masks

SHORT = ("recipe.steps=2", "method=random")


# -- nouns --------------------
def test_nouns_agree_with_their_numbers() -> None:
    assert [counted(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert [counted(n, "class") for n in (1, 2)] == ["1 class", "2 classes"]
    assert [counted(2, noun) for noun in ("entry", "key")] == ["2 entries", "2 keys"]
    assert [numbered("seed", numbers) for numbers in ([3], [0, 1])] == ["seed 3", "seeds 0, 1"]


# -- values --------------------
@pytest.mark.parametrize(
    "override, part",
    [
        (
            "model=mlp model.hidden=[0]",
            "model.hidden=[0] is not allowed. It must be a list of widths, each 1 or more",
        ),
        ("method=null", "method=null is not allowed"),
        (
            "recipe.lr=1e300",
            "recipe.lr=1e+300 is not allowed. It must be a number above 0, at most",
        ),
        ("recipe.weight_decay=1e300", "recipe.weight_decay=1e+300 is not allowed"),
        (
            "recipe.steps=10000000000000000000000",
            "recipe.steps=10000000000000000000000 is not allowed",
        ),
        ("model=resnet20 model.width=1e30", "dimred.models.resnet cannot be built"),
        ("+model.hidden=[3]", "unknown key model.hidden"),
    ],
)
def test_an_impossible_value_is_named(
    override: str, part: str, dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    code, _, err = dimred("train", *SHORT, *override.split(), f"outputs={tmp_path}")
    assert code == 1 and part in err and "unexpected" not in err and "frame #" not in err


# -- files --------------------
def claim(path: Path, shape: str, content: bytes = b"\1", says: int | None = None) -> Path:
    """A masks.npz with an array whose header claims a shape; `says`: the size in the zip
    directory."""
    header = f"{{'descr': '|b1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "fc1.weight.npy",
            np.lib.format.magic(1, 0) + len(header).to_bytes(2, "little") + header + content,
        )
        if says:
            archive.infolist()[0].file_size = says
    return path


@pytest.mark.parametrize("says", [None, 10**12 + 128])
def test_a_mask_that_claims_to_be_huge_takes_no_memory(says: int | None, tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"damaged.*fc1.weight.npy says that it has 1000000000000 "
        r"bytes",
    ):
        read_masks(claim(tmp_path / "masks.npz", "(1000000, 1000000)", says=says))


def test_a_mask_that_is_well_compressed_is_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "masks.npz", a=np.zeros((1000, 1000), bool), b=np.ones((), bool))
    assert {name: mask.shape for name, mask in read_masks(tmp_path).items()} == {
        "a": (1000, 1000),
        "b": (),
    }


@pytest.mark.parametrize(
    "text", ["[]", "5", "null", '"done"', "[" * 100_000, '{"status": "done", "layers": 3}']
)
def test_a_result_that_is_no_object_is_damaged(
    text: str, dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "result.json").write_text(text)
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    for command in (("show", tmp_path), ("runs", tmp_path), ("runs", tmp_path, "--format=csv")):
        _, out, err = dimred(*map(str, command))
        assert "unexpected" not in err and "Traceback" not in err
        assert "is damaged" in err or "damaged" in out


def test_a_result_that_is_a_list_is_described_in_words(finished: Path) -> None:
    (finished / "result.json").write_text("[1]")
    assert read_run(finished).why == "result.json cannot be read (it is not an object)"


def test_escape_codes_in_stored_text_do_not_reach_the_terminal(
    dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J"
    layers = {f"fc{evil}": {"shape": [1], "total": 1, "trained": 1, "nonzero": 1}}
    (tmp_path / "result.json").write_text(
        json.dumps({"status": "done", "method": evil, "layers": layers})
    )
    (tmp_path / "config.yaml").write_text(f"seed: 0\nmethod: {evil}\n")
    for command in ("show", "runs"):
        _, out, err = dimred(command, str(tmp_path))
        assert "\x1b" not in out + err and "\x07" not in out + err
    failing = dimred("show", f"{tmp_path}/{evil}")
    assert failing.code == 1 and "\x1b" not in failing.err and r"\x1b[2J" in failing.err


def test_a_killed_runs_temporary_files_are_removed_when_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    leftovers = [tmp_path / ".result.json.4711", tmp_path / "checkpoint/.last.safetensors.12"]
    others = [tmp_path / "log.txt", tmp_path / ".notes", tmp_path / "checkpoint/last.safetensors"]
    for path in (*leftovers, *others):
        path.write_text("half")
    with RunFolder(tmp_path):
        assert not any(path.exists() for path in leftovers) and all(
            path.exists() for path in others
        )


def test_a_write_that_is_interrupted_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "result.json", b"{}")
    assert list(tmp_path.iterdir()) == []


# -- places --------------------
def test_a_deleted_working_folder_is_named(tmp_path: Path) -> None:
    command = f"mkdir gone && cd gone && rmdir ../gone && {SCRIPT} methods"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "dimred: the working folder no longer exists" in done.stderr


def test_a_full_disk_behind_stdout_is_reported() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([SCRIPT, "methods"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"dimred: {os.strerror(errno.ENOSPC)}: nothing more can be written. Free some"
    )


def test_a_terminal_of_ascii_shows_what_it_can(tmp_path: Path) -> None:
    settings = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [SCRIPT, "train", "-m", *SHORT, "seed=0,1", f"outputs='{tmp_path}/größe'"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **settings})
    assert done.returncode == 0, done.stderr
    assert rb" \xb1 " in done.stdout and done.stdout.isascii()
    assert len(list(tmp_path.glob("größe/runs/*/*/*/result.json"))) == 2


# -- processes --------------------
def test_workers_of_a_sweep_end_with_their_parent(
    start: Callable[..., Command], tmp_path: Path
) -> None:
    command = start(
        "train",
        "-m",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "method=dense",
        "seed=0,1",
        "recipe.epochs=100000",
        f"outputs={tmp_path}",
    )
    until(
        lambda: (
            len([path for path in tmp_path.glob("runs/*/*/*/metrics.jsonl") if path.stat().st_size])
            == 2
        ),
        100,
    )
    runs = list(tmp_path.glob("runs/*/*/*"))
    workers = {int((run / ".lock").read_text().split()[1]) for run in runs}
    assert len(workers) == 2 and command.pid not in workers
    os.kill(command.pid, signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert all((run / "checkpoint/last.safetensors").exists() for run in runs)
