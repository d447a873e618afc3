"""The commands of the README, typed as they stand, and its example of a method."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()
]
DATA = Path(os.environ.get("DIMRED_DATA", ROOT.parent / "shared" / "data")).resolve()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder elsewhere, with the files that the README shows."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name, text in re.findall(r"```\w+\n# (\S+\.(?:py|yaml))\n(.*?)```", README, re.S):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_readme_has_five_examples_and_a_method() -> None:
    assert len(COMMANDS) == 20 and "# halfway.py" in README


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_run(command: str, folder: Path) -> None:
    if (
        "dataset=cifar10 " in command
    ):  # hours, and a download: that its configuration composes must do here
        command += " --cfg job"
    if "reproduce survey_digits" in command:  # half an hour: a cell of it has to do
        command = command.replace(
            "survey_digits", "survey_digits --seeds 1 --only '0.9: at init: snip$'", 1
        )
    if "dataset=mnist" in command and not (DATA / "MNIST").exists():
        pytest.skip(f"no MNIST in {DATA}; set DIMRED_DATA")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PATH": path, "DIMRED_DATA": str(DATA)},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_the_method_of_the_readme_prunes_halfway(folder: Path) -> None:
    results = list((folder / "outputs/runs/digits/lenet300").glob("halfway-s0.95-*/result.json"))
    assert len(results) == 1 and '"dim": 2510,' in results[0].read_text()
