"""The commands and the Python of the README and of docs/, run exactly as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial, partialmethod
from pathlib import Path

import numpy as np
import pytest
from commands import Command
from conftest import ROOT
from small_data import REAL, real

from dimred.data import MNIST
from dimred.data.memory import Examples

#: in the order in which their commands are typed
PAGES = ("README.md", "docs/results.md", "docs/extending.md", "docs/models.md", "docs/tables.md")
TEXT = "\n".join((ROOT / page).read_text() for page in PAGES)
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.S)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder elsewhere, with the files that the pages show."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name, text in re.findall(r"```\w+\n# (\S+\.(?:py|yaml))\n(.*?)```", TEXT, re.S):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_pages_have_26_commands_and_a_method() -> None:
    assert len(COMMANDS) == 26 and "# halfway.py" in TEXT


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_pages_run(command: str, folder: Path, tmp_path: Path) -> None:
    if (
        "dataset=cifar10 " in command
    ):  # hours, and a download: that its configuration composes must do here
        command += " --cfg job"
    if "reproduce survey_digits" in command:  # half an hour: a cell of it has to do
        command = command.replace(
            "survey_digits", "survey_digits --seeds 1 --scale 0.1 --only '0.9: at init: snip$'", 1
        )
    if "dataset=mnist" in command:
        real("MNIST/raw")
    python_path, *words = words_of(command, folder)
    done = Command((*words,), tmp_path, partial(prepare, folder, python_path)).wait(300)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err


def words_of(command: str, folder: Path) -> list[str]:
    """PYTHONPATH and the words that a shell gives to `dimred`."""
    shell = f'dimred() {{ printf \'%s\\0\' "${{PYTHONPATH-}}" "$@"; }}\n{command}'
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["bash", "-c", shell], cwd=folder, env=environment, stdout=subprocess.PIPE, check=True
    )
    return done.stdout.decode().split("\0")[:-1]


def prepare(folder: Path, python_path: str) -> None:
    """What a command finds that is typed in the folder. MNIST has a fifth of its images."""
    os.environ["DIMRED_DATA"] = str(REAL.resolve())
    os.chdir(folder)
    if python_path:
        sys.path.insert(0, str(folder / python_path))
    MNIST.read = partialmethod(first_of, MNIST.read)  # type: ignore[method-assign, assignment]


def first_of(data: MNIST, read: Callable[[MNIST], tuple[Examples, Examples]]) -> list[Examples]:
    return [part.at(np.arange(len(part.labels) // 5)) for part in read(data)]


def test_the_method_of_docs_extending_prunes_halfway(folder: Path) -> None:
    results = list((folder / "outputs/runs/digits/lenet300").glob("halfway-s0.95-*/result.json"))
    assert len(results) == 1 and '"dim": 2510,' in results[0].read_text()


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_python_of_the_pages_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    code = [block for block in blocks if not block.startswith("def run(")]
    assert code[0].startswith("import dimred")
    exec("".join(code), {})


def test_the_method_in_the_readme_is_that_of_docs_extending() -> None:
    """Its run, but for the fraction of training that is a field there."""
    (short,) = re.findall(r"```python\n(def run.*?)```", TEXT, re.S)
    (whole,) = re.findall(r"# halfway.py\n(.*?)```", TEXT, re.S)
    for line in short.splitlines()[2:]:
        full = line.strip().replace("len(train) // 2", "middle")
        assert full in whole


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_files_that_a_page_links_to_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#:]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    assert links
    for link in links:
        assert (ROOT / "".join(link)).exists(), link
