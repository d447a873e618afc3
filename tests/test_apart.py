"""`dimred runs`: columns of the keys in which runs differ."""

from __future__ import annotations

from pathlib import Path

import pytest
from figures import change_config, folders

from dimred.cli.runs import of_folder
from dimred.report.apart import keys_apart, titles
from dimred.report.runs import Run, find_runs


def table(found: list[Run], fit: int | None = None) -> list[list[str]]:
    return [line.split() for line in of_folder(found, fit).splitlines()]


def test_runs_that_differ_in_method_sparsity_and_seed_need_no_more_columns(runs: Path) -> None:
    assert keys_apart(find_runs(runs)) == []
    assert table(find_runs(runs))[0] == ["run", "state", "test", "%", "dim", "nonzero", "storage"]


@pytest.mark.parametrize(
    ("before", "after", "title", "values"),
    [
        ("lr: 0.1", "lr: 0.05", "lr", {"0.1", "0.05"}),
        ("mixup: 0.0", "mixup: 0.2", "mixup", {"0.0", "0.2"}),  # descriptions leave out mixup=0
        ("examples: 128", "examples: 64", "examples", {"128", "64"}),
    ],
)
def test_a_key_in_which_runs_differ_has_a_column(
    runs: Path, before: str, after: str, title: str, values: set[str]
) -> None:
    change_config(folders(runs, "snip-s0.9-seed1-*")[0], before, after)
    found = [run for run in find_runs(runs) if run.folder.name.startswith("snip")]
    header, *rows = table(found)
    assert header[:3] == ["run", "state", title]
    assert {row[2] for row in rows} == values


def test_defaults_of_other_methods_are_no_difference(runs: Path) -> None:
    change_config(folders(runs, "snip-s0.9-seed1-*")[0], "examples: 128", "examples: 64")
    snip_and_set = find_runs(runs)
    assert keys_apart(snip_and_set) == ["method.examples"]
    at = table(snip_and_set)[0].index("examples")
    assert {row[at] for row in table(snip_and_set)[1:] if row[0].startswith("snip")} == {
        "128",
        "64",
    }


def test_columns_that_do_not_fit_are_left_out_and_named(runs: Path) -> None:
    for before, after in (("lr: 0.1", "lr: 0.05"), ("epochs: 3", "epochs: 4")):
        change_config(folders(runs, "snip-s0.9-seed1-*")[0], before, after)
    header, *_, last = of_folder(find_runs(runs), 50).splitlines()
    assert header.split() == ["run", "state", "lr", "test", "%"]
    assert last == "not shown (see --format csv): recipe.epochs"


def test_equal_last_words_of_keys_are_told_apart() -> None:
    keys = ["recipe.lr", "method.lr", "recipe.epochs"]
    assert list(titles(keys).values()) == ["recipe.lr", "method.lr", "epochs"]
    assert titles(["method.dim"], ["dim"]) == {"method.dim": "method.dim"}


def test_a_damaged_run_differs_in_no_key(runs: Path) -> None:
    for run in folders(runs):
        change_config(run, "mixup: 0.0", "mixup: 0.2")
    (folders(runs)[0] / "config.yaml").write_text("{")
    assert keys_apart(find_runs(runs)) == []
