"""Sweeps and searches on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Outcome, result_of
from omegaconf import OmegaConf
from run_settings import SHORT

from dimred.errors import UserError
from dimred.runs.config.objectives import NUMBERS, require_directions, value_of


def test_a_sweep_survives_a_failing_cell_and_skips_what_is_finished(
    dimred: Callable[..., Outcome], train: Callable[..., Path], tmp_path: Path
) -> None:
    single = train("method=snip", SHORT)
    command = (
        "train",
        SHORT,
        f"outputs={tmp_path / 'outputs'}",
        "-m",
        "method=norm_only,dense,snip",
        "sparsity=0.5,0.9",
    )
    times: list[dict[Path, int]] = []
    for _ in range(2):
        code, out, err = dimred(*command)
        assert (
            code == 1
            and "6 runs, 2 failed (1 the same as another)" in out
            and "Traceback" not in err
        )
        assert out.count("FAILED: method norm_only trains") == 1
        assert out.count("method=norm_only sparsity=") == 2
        table = [line.split() for line in out.splitlines() if line.startswith("method=")]
        # dense is one run
        assert [row[0] for row in table] == ["method=dense", "method=snip", "method=snip"]
        # sparsity=0.9 is below its name
        assert f"{100 * result_of(single)['test_accuracy']:.2f}" in table[2]
        assert (
            "run 3 of 6 (method=dense sparsity=0.5): method=dense has no sparsity: "
            "sparsity=0.5 is not used" in err
        )
        results = list(tmp_path.glob("outputs/runs/*/*/*/result.json"))
        times.append(
            {
                path: path.stat().st_mtime_ns
                for path in results
                if result_of(path.parent)["status"] == "done"
            }
        )
    assert times[0] == times[1] and len(times[0]) == 3


def test_a_sweep_of_good_cells_succeeds(dimred: Callable[..., Outcome], tmp_path: Path) -> None:
    code, out, _ = dimred("train", "-m", SHORT, "seed=0,1", f"outputs={tmp_path}")
    assert code == 0 and "2 runs, 0 failed" in out


def test_a_search_finds_the_highest_validation_accuracy(
    dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    command = (
        "train",
        "-m",
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=4",
        "hydra.sweeper.n_jobs=1",
        SHORT,
        "hydra.sweeper.sampler.seed=0",
        "recipe.lr=choice(0.001,0.1,1e10)",
        "recipe.momentum=interval(0.5,0.9)",
        f"outputs={tmp_path}",
    )
    # runs at 1e10 fail, and the search goes on
    done = dimred(*command, "hydra.sweeper.direction=maximize")
    assert "4 runs" in done.out, done.err
    best = yaml.safe_load(next(tmp_path.glob("sweeps/*/optimization_results.yaml")).read_text())
    found = [result_of(path.parent) for path in tmp_path.glob("runs/*/*/*/result.json")]
    assert best["best_value"] == max(result.get("val_accuracy", 0) for result in found)
    lowest = dimred(*command)
    assert lowest.code == 1 and "Add hydra.sweeper.direction=maximize" in lowest.err
    without = dimred(
        *command, "hydra.sweeper.direction=maximize", "dataset.val_fraction=0", "recipe.lr=0.1"
    )
    assert without.code == 1 and "there is no validation split" in without.err


def test_a_search_has_several_objectives(dimred: Callable[..., Outcome], tmp_path: Path) -> None:
    """Few weights and a low loss: the front has no run that another one beats in both."""
    done = dimred(
        "train",
        "-m",
        "hydra/sweeper=optuna_recipe",
        "hydra.sweeper.n_trials=4",
        "hydra.sweeper.sampler.seed=0",
        "recipe.steps=20",
        "sparsity=choice(0.5,0.9)",
        "recipe.lr=choice(0.001,0.1,1e10)",
        f"outputs={tmp_path}",
        "objective=[val_accuracy,dim]",
        "hydra.sweeper.direction=[maximize,minimize]",
    )
    assert "4 runs, 2 failed" in done.out, done.err
    file = next(tmp_path.glob("sweeps/*/optimization_results.yaml"))
    front = {tuple(each["values"]) for each in yaml.safe_load(file.read_text())["solutions"]}
    results = [result_of(path.parent) for path in tmp_path.glob("runs/*/*/*/result.json")]
    runs = {(r["val_accuracy"], r["dim"]) for r in results if r["status"] == "done"}
    beaten = {
        run for run in runs if any(o != run and o[0] >= run[0] and o[1] <= run[1] for o in runs)
    }
    assert front == runs - beaten


def test_every_objective_has_its_direction() -> None:
    names = ["val_accuracy", "dim"]
    with pytest.raises(UserError, match=r"2 objectives \(val_accuracy, dim\) and 1 direction[.]"):
        require_directions(OmegaConf.create({"direction": "maximize"}), names)
    with pytest.raises(UserError, match="Write maximize in its place"):
        require_directions(OmegaConf.create({"direction": ["minimize", "minimize"]}), names)


def test_an_objective_is_a_number_of_the_result(
    dimred: Callable[..., Outcome], train: Callable[..., Path]
) -> None:
    result = result_of(train("recipe.steps=3", "recipe.ema=0.9", "objective=test_loss"))
    numbers = {key for key, value in result.items() if type(value) in (int, float)}
    assert numbers == set(NUMBERS)
    wrong = dimred("train", "recipe.steps=3", "objective=test_acuracy")
    assert wrong.code == 1 and "Did you mean 'test_accuracy'" in wrong.err


def test_a_failed_run_has_the_worst_value() -> None:
    sweeper = OmegaConf.create({"_target_": "Optuna", "direction": ["maximize", "minimize"]})
    names = ["val_accuracy", "dim"]
    assert value_of({"status": "failed"}, names, sweeper) == [0.0, float("inf")]
    assert value_of({"status": "done", "val_accuracy": 0.5, "dim": 7}, names, sweeper) == [0.5, 7]


@pytest.mark.parametrize(
    "minimises, maximises, key",
    [
        # optuna, nevergrad, ax
        ({"direction": "minimize"}, {"direction": "maximize"}, "direction=maximize"),
        ({"optim": {"maximize": False}}, {"optim": {"maximize": True}}, "optim.maximize=true"),
        (
            {"ax_config": {"experiment": {"minimize": True}}},
            {"ax_config": {"experiment": {"minimize": False}}},
            "ax_config.experiment.minimize=false",
        ),
    ],
)
def test_a_sweeper_that_would_find_the_lowest_accuracy_is_refused(
    minimises: dict[str, Any], maximises: dict[str, Any], key: str
) -> None:
    with pytest.raises(UserError, match=f"Add hydra.sweeper.{key}"):
        require_directions(OmegaConf.create(minimises), ["val_accuracy"])
    require_directions(OmegaConf.create(minimises), ["training_flops"])
    require_directions(OmegaConf.create(maximises), ["val_accuracy"])


def test_a_sweep_leaves_no_folders_of_its_jobs(
    dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    assert dimred("train", "-m", SHORT, "seed=0,1", f"outputs={tmp_path}").code == 0
    assert sorted(path.name for path in tmp_path.glob("sweeps/*/*")) == [
        "0.json",
        "1.json",
        "multirun.yaml",
    ]
    assert "name: dimred" in dimred("train", "--cfg", "hydra").out
