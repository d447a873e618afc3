"""Tab completion: the completions of a line, and that real shells offer them."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, SCRIPT, Outcome

from dimred.cli.completion import SCRIPTS, complete

PATH = f"{Path(SCRIPT).parent}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    "line, found",
    [
        ("dimred tr", ["train"]),
        ("dimred train --con", ["--config-dir"]),
        ("dimred train method=ri", ["method=rigl"]),
        (
            "dimred train -m method=snip,freezenet_",
            ["method=snip,freezenet_values", "method=snip,freezenet_wd"],
        ),
        ("dimred train method=rigl method.update_e", ["method.update_every="]),
        (
            "dimred train method=synflow method.schedule=",
            ["method.schedule=exponential", "method.schedule=linear"],
        ),
        ("dimred train recipe.nest", ["recipe.nesterov="]),  # of the default recipe
        ("dimred train recipe.nesterov=t", ["recipe.nesterov=true"]),
        ("dimred train spars", ["sparsity="]),
        ("dimred train +exp", ["+experiment="]),
        ("dimred train +experiment=free", ["+experiment=freezenet_lenet5"]),
        ("dimred train tracker=ten", ["tracker=tensorboard"]),
        ("dimred train tracker=[mlflow,wandb] tracker.wandb.pro", ["tracker.wandb.project="]),
        ("dimred train tracker=wandb tracker.wandb.mode=of", ["tracker.wandb.mode=offline"]),
        ("dimred train device=c", ["device=cpu", "device=cuda"]),
        ("dimred check rig", ["rigl"]),
        ("dimred check rigl update_e", ["update_every="]),
        ("dimred methods soft_", ["soft_movement"]),
        ("dimred table pretr", ["pretraining"]),
        ("dimred reproduce survey_d", ["survey_digits"]),
        ("dimred plot --format=p", ["--format=pdf", "--format=png"]),
        ("dimred export --format to", ["torch-export"]),
        ("dimred mask d", ["diff"]),
        ("dimred comp", ["compare", "completion"]),
        ("dimred plot cur", ["curves"]),
        ("dimred plot --x training_flops_", ["training_flops_relative"]),
        ("dimred plot --by me", ["method"]),
        ("dimred data pre", ["prepare"]),
        ("dimred data prepare --sk", ["--skip-corrupted"]),
        ("dimred completion z", ["zsh"]),
        ("dimred train 'method=ri", ["method=rigl"]),
        ("dimred trian met", []),
        ("dimred train color=re", []),
    ],
)
def test_completions_of_a_line(line: str, found: list[str]) -> None:
    assert [each for each in complete(line) if not each.startswith("pretraining_")] == found


def test_keys_and_groups_are_offered_where_nothing_is_typed() -> None:
    offered = complete("dimred train ")
    assert {"method=", "method.", "recipe.", "sparsity=", "seed="} <= set(offered)
    assert complete("dimred show --") == ["--debug", "--help", "--json"]


def test_run_folders_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("snip-s0.9-seed0-aa", "snip-s0.9-seed1-bb", "rigl-seed0-cc"):
        run = tmp_path / "outputs/runs/digits/lenet300" / name
        run.mkdir(parents=True)
        (run / "config.yaml").touch()
    monkeypatch.chdir(tmp_path)
    run = "outputs/runs/digits/lenet300/snip-s0.9-seed"
    assert complete(f"dimred show {run}") == [f"{run}0-aa", f"{run}1-bb"]
    assert f"{run}0-aa" in complete("dimred mask diff ")


def test_names_and_fields_of_the_user_are_offered(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method/mine.yaml").write_text("_target_: mine.Mine\nspeed: 2     # of light\n")
    own = f"dimred train --config-dir {tmp_path}"
    assert complete(f"{own} method=min") == ["method=mine"]
    assert complete(f"{own} method=mine method.") == ["method.speed="]


# -- shells --------------------
BASH = """
{installed}
COMP_LINE="$1"; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=(dimred)
_dimred dimred
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def bash(line: str, command: str) -> list[str]:
    """What bash would put in place of what is behind the last = (or space)."""
    script = BASH.format(installed=f'eval "$({command})"').replace("compopt -o nospace", ":")
    done = subprocess.run(
        ["bash", "-c", script, "bash", line],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": PATH},
    )
    return done.stdout.split()


@pytest.mark.parametrize("command", ["dimred completion bash", "dimred train -sc install=bash"])
def test_bash_completes_after_either_way_of_installing(command: str) -> None:
    assert bash("dimred train method=ri", command) == ["rigl"]
    assert bash("dimred reproduce survey_d", command) == ["survey_digits"]


def test_the_tab_key_completes_in_an_interactive_bash() -> None:
    main, end = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--norc", "-i"],
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
        env={**os.environ, "PATH": PATH, "TERM": "dumb", "PS1": "$ "},
    )
    os.close(end)
    os.write(
        main, b'eval "$(dimred completion bash)"\n' + b"dimred train method=synflow method.sched\t"
    )
    seen = b""
    while b"method.schedule=" not in seen:  # nothing but completion writes this
        seen += os.read(main, 4096)
    os.write(main, b"\x15exit\n")  # \x15 takes the line back
    assert shell.wait(60) == 0
    os.close(main)


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_a_script_is_what_its_shell_can_read(
    shell: str, dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    out = dimred("completion", shell).out
    assert "completion reply" in out and "dimred" in out
    if program := shutil.which(shell):
        (tmp_path / "script").write_text(out)
        assert (
            subprocess.run(
                [program, "-n", str(tmp_path / "script")], capture_output=True
            ).returncode
            == 0
        )


def test_completion_is_fast_and_needs_no_torch() -> None:
    program = (
        "import sys; from dimred.cli.main import main; main(['completion', 'reply', 'dimred "
        "train method=ri']); "
        "assert not {'torch', 'hydra', 'tqdm'} & set(sys.modules)"
    )
    done = subprocess.run(
        ["python3", "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PATH": PATH},
    )
    assert done.stdout == "method=rigl\n", done.stderr
