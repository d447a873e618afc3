"""The experiments that dimred ships are cells of the papers' tables, and can be changed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Outcome, compose
from tables import shipped

from dimred.errors import UserError
from dimred.runs.config.composition import composed_with_choices
from dimred.runs.config.files import names
from dimred.runs.config.schema import checked
from dimred.runs.identity import describe

#: the table, the part of it, the row and the column
CELLS = {
    "freezenet_lenet5": ("freezenet_mnist", "LeNet-5-Caffe", "FreezeNet", "0.9936 (×157)"),
    "lr_rewinding_resnet20": ("tickets_resnet20", "Iterative", "LR rewinding", "89.3 %"),
    "rigl_resnet50": ("rigl_imagenet_resnet50", "", "RigL (ERK)", "80 %"),
    "rigl_wrn22_2": ("rigl_wrn22_2", "", "RigL(ERK)", "90 %"),
    "snip_resnet20": ("missing_the_mark_resnet20", "", "SNIP", "89.3 %"),
    "synflow_resnet18": ("pai_cifar10_resnet18", "", "SynFlow", "10^1.0 (10.00 %)"),
}
INHERITED = {"cifar10"}


@pytest.mark.parametrize("name", CELLS)
def test_an_experiment_is_the_cell_of_the_table_that_it_names(name: str) -> None:
    table, part, row, column = CELLS[name]
    text = " ".join((ROOT / f"conf/experiment/{name}.yaml").read_text().replace("#", "").split())
    assert f"dimred table {table}" in text
    (cells,) = [each.cells for each in shipped(table).parts if each.name == part]
    (cell,) = [each for each in cells if (each.row, each.column) == ((row,), (column,))]
    described = describe(checked(compose(f"+experiment={name}")))
    del described["seed"]
    assert described == cell.description


def test_every_experiment_is_tested_or_inherited() -> None:
    assert {*names("experiment")} == CELLS.keys() | INHERITED


def test_an_experiment_can_be_changed_and_names_its_method() -> None:
    words = ["+experiment=rigl_wrn22_2", "sparsity=0.95", "recipe.epochs=500"]
    cfg, choices = composed_with_choices(words)
    assert (cfg.sparsity, cfg.recipe.epochs, cfg.recipe.lr) == (0.95, 500, 0.1)
    assert (choices["method"], choices["dataset"], choices["model"]) == (
        "rigl",
        "cifar10",
        "wrn22_2",
    )
    with pytest.raises(UserError, match="Did you mean 'rigl_wrn22_2'"):
        composed_with_choices(["+experiment=rigl_wrn22"])


@pytest.mark.parametrize(
    "setting, words",
    [
        (
            "defaults: [override /hydra/launcher: packed]",
            "sets hydra/launcher=packed, and a launcher needs -m|add hydra/launcher=basic to train",
        ),
        (
            "defaults: [override /hydra/sweeper: optuna]",
            "sets hydra/sweeper=optuna, and a sweeper needs -m|add hydra/sweeper=basic to train",
        ),
        ("hydra: {sweeper: {params: {seed: '0,1'}}}", "sets hydra.sweeper.params (seed)"),
    ],
)
def test_what_an_experiment_sets_for_sweeps_is_refused_without_m(
    setting: str, words: str, dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    file = tmp_path / "experiment/swept.yaml"
    file.parent.mkdir()
    file.write_text(f"# @package _global_\n{setting}\n")
    arguments = ("train", "+experiment=swept", "recipe.steps=2", f"outputs={tmp_path}")
    one = dimred(*arguments, "--config-dir", str(tmp_path))
    assert one.code == 1 and not (tmp_path / "runs").exists()
    for part in words.split("|"):
        assert part in one.err
    if "launcher" in setting:
        alone = dimred(*arguments, "--config-dir", str(tmp_path), "hydra/launcher=basic")
        assert alone.code == 0, alone.err


def commands(section: str) -> list[str]:
    """Those that a section of docs/usage.md shows."""
    page = (ROOT / "docs/usage.md").read_text().replace("\\\n", " ")
    (text,) = re.findall(rf"\n## {section}\n(.*?)(?=\n## |\Z)", page, re.S)
    return re.findall(r"^    dimred (train .*)$", text, re.M)


@pytest.mark.parametrize("command", commands("Experiments"))
def test_experiments_of_the_page_compose(command: str) -> None:
    """The runs take hours. Of a sweep, each of its experiments."""
    words = [word for word in command.split()[1:] if word != "-m"]
    named = [word.split("=")[1].split(",") for word in words if word.startswith("+")]
    others = [word for word in words if "," not in word]
    for name in named[0]:
        checked(compose(f"+experiment={name}", *(w for w in others if not w.startswith("+"))))


@pytest.mark.parametrize("command", commands("Hyperparameter search"))
def test_searches_of_the_page_run(
    command: str, dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    short = ("hydra.sweeper.n_trials=1", "recipe.steps=6", f"outputs={tmp_path}")
    done = dimred(*shlex.split(command), *short)
    assert done.code == 0 and "1 run, 0 failed" in done.out, done.err
