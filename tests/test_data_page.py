"""The programs of docs/data.md run, and its commands read the data that they name."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import datasets
import pytest
from conftest import ROOT
from hydra.utils import instantiate
from small_data import forking

from dimred.cli import data
from dimred.runs.config.composition import composed, own_folder

PAGE = (ROOT / "docs/data.md").read_text()
FILES = dict(re.findall(r"```\w+\n# (\S+\.(?:py|yaml))\n(.*?)```", PAGE, re.S))
COMMANDS = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.S)).splitlines()


@forking
@pytest.mark.usefixtures("own_cache")
def test_commands_of_the_page_read_what_its_programs_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    runpy.run_path("examples.py")
    assert len(COMMANDS) == 8
    for command in COMMANDS:
        program, name, *arguments = shlex.split(command.removeprefix("PYTHONPATH=. "))
        assert program == "dimred"
        if name == "data":
            assert data.run(arguments) == 0
        else:
            assert name == "train"
            read(arguments)


def read(arguments: list[str]) -> None:
    """What `dimred train` reads first."""
    folder = None
    if arguments[0] == "--config-dir":
        folder, arguments = own_folder(arguments[1]), arguments[2:]
    cfg = composed(arguments, folder)
    images, labels = next(instantiate(cfg.dataset).train_batches(cfg.recipe.batch_size, 0, 0))
    assert len(images) == len(labels) == 16
