"""`dimred train --from RUN` computes a run again from its folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, Outcome, result_of
from run_settings import SHORT


def test_a_run_is_run_again_from_its_folder(
    train: Callable[..., Path], dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    first = train(
        "method=rigl", "sparsity=0.8", "method.update_every=1", SHORT, "dataset.val_fraction=0.2"
    )
    again = ("train", "--from", str(first))
    same = dimred(*again, before=partial(os.chdir, "/"))
    assert same.code == 0 and f"finished already: {first}" in same.err
    other = result_of(Path(dimred(*again, "seed=1", "sparsity=0.9").out.splitlines()[-1].strip()))
    assert (other["method"], other["dim"], other["seed"]) == ("rigl", 5020, 1)
    overridden = Path(
        dimred(*again, "method=snip", "allocation=uniform").out.splitlines()[-1].strip()
    )
    assert overridden.name.startswith("snip-s0.8-") and overridden.parent == first.parent
    assert result_of(overridden)["allocation"] == "uniform" and result_of(overridden)["steps"] == 3
    swept = dimred(*again, "-m", "seed=0,2")
    assert "2 runs, 0 failed" in swept.out
    wrong = dimred(*again, "recipe.lrr=1")
    assert wrong.code == 1 and "unknown key recipe.lrr. Did you mean 'lr'" in wrong.err
    shutil.copytree(first, tmp_path / "elsewhere")
    copied = dimred("train", "--from", "elsewhere", before=partial(os.chdir, tmp_path))
    assert "finished already" in copied.err


def test_an_older_run_is_run_again(
    train: Callable[..., Path], dimred: Callable[..., Outcome]
) -> None:
    run = train("method=rigl", SHORT, "method.update_every=1")
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["choices"], config["recipe"]["decay_all"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert f"finished already: {run}" in dimred("train", "--from", str(run)).err


CALLS_MKDIR = {"version": 1, "formatters": {"any": {"()": "os.mkdir", "path": "made"}}}


@pytest.mark.parametrize(
    "change, part",
    [
        (
            lambda config: config["method"].update(_target_="os.mkdir", path="made"),
            "asks for os.mkdir",
        ),
        (
            lambda config: config["method"].update(examples="${oc.env:HOME}"),
            "a run's values are plain",
        ),
        (
            lambda config: config["recipe"].update(defaults=["/method: rigl"]),
            "a run's values are plain",
        ),
        (lambda config: config.pop("method"), "describes no run"),
        (lambda config: config["recipe"].update(x=1), "recipe.x"),
        (
            lambda config: config.update(hydra={"job_logging": CALLS_MKDIR}),
            "says hydra; a run's values are plain",
        ),
    ],
)
def test_a_run_that_is_run_again_is_data(
    change: Callable[[Any], object], part: str, finished: Path, dimred: Callable[..., Outcome]
) -> None:
    config = yaml.safe_load((finished / "config.yaml").read_text())
    change(config)
    (finished / "config.yaml").write_text(yaml.safe_dump(config))
    done = dimred("train", "--from", str(finished))
    assert (
        done.code == 1
        and part in done.err
        and "unexpected" not in done.err
        and not Path("made").exists()
    )


def test_files_that_would_have_no_effect_are_refused(
    finished: Path, dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    done = dimred("train", "--config-dir", str(finished), "--config-name", "config")
    assert done.code == 1 and f"dimred train --from {finished}" in done.err
    (tmp_path / "conf/method").mkdir(parents=True)
    (tmp_path / "conf/method/rigl.yaml").write_text((ROOT / "conf/method/rigl.yaml").read_text())
    for command in (("train",), ("table", "cops"), ("check", "rigl")):
        shadowed = dimred(*command, "--config-dir", str(tmp_path / "conf"))
        assert shadowed.code == 1 and "method/rigl.yaml would not be used" in shadowed.err
