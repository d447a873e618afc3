"""dimred reproduce: the sweeps of a table, excerpts and changes, and the estimate of its cost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command, Outcome
from fixtures import TINY
from hypothesis import given
from hypothesis import strategies as st
from tables import RANDOM, SNIP, all_of, cell, filled, put, shipped

from dimred.cli.reproduce import file_name
from dimred.cli.table import Request, parser, request
from dimred.errors import UserError
from dimred.report.runs import find_runs
from dimred.report.tables.change import Change
from dimred.report.tables.costs import estimate, longest_first
from dimred.report.tables.formats import FORMATS
from dimred.report.tables.plan import Job, left, sweeps
from dimred.report.tables.published import read_table
from dimred.report.tables.table import Cell


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 2)),
        unique=True,
        min_size=1,
    )
)
def test_any_jobs_become_sweeps_of_exactly_these(jobs: list[tuple[str, str, int]]) -> None:
    made = [
        Job(Cell((), (), {"method": one, **({"basis": two} if two != "z" else {})}, {}), seed)
        for one, two, seed in jobs
    ]
    assert all_of(sweeps(made)) == sorted(sorted(job.overrides.items()) for job in made)


def test_a_table_is_run_once_written_and_then_only_what_failed_is_tried_again(
    tmp_path: Path, dimred: Callable[..., Outcome]
) -> None:
    (tmp_path / "mine.yaml").write_text(
        TINY.split("published")[0]
        .replace('"0.9": sparsity=0.9', '"1": sparsity=0.99999')
        .replace("random: method=random,", "")
    )
    arguments = ("reproduce", str(tmp_path / "mine.yaml"), f"outputs={tmp_path}", "device=cpu")
    dry = dimred(*arguments, "--dry-run")
    assert dry.code == 0 and "time: unknown" in dry.out
    assert "6 runs to do: 2 steps of training each, 12 in all" in dry.out
    assert dry.out.count("dimred train -m seed=0,1") == 2 and "device=cpu" in dry.out
    assert not list(tmp_path.rglob("result.json"))
    done = dimred(*arguments)
    assert done.code == 1 and "Traceback" not in done.err  # one cell leaves too few weights
    page = (tmp_path / "tables/mine.md").read_text()
    assert (
        re.search(r"\| dense +\| \d\d\.\d\d ± \d+\.\d\d \(2\) \[", page)
        and "written by `dimred reproduce" in page
    )
    assert "SNIP / 1, seed 0; SNIP / 1, seed 1 failed: sparsity=0.99999 leaves" in page
    assert json.loads((tmp_path / "tables/mine.json").read_text())["made"]
    again = dimred(*arguments)
    assert "2 runs to do" in again.out and "time: about" in again.out
    assert (tmp_path / "tables/mine.md").read_text() == page
    shown = dimred("table", str(tmp_path / "mine.yaml"), f"outputs={tmp_path}", "device=cpu")
    assert shown.code == 0 and page.startswith(shown.out)


def test_the_longest_runs_come_first_and_before_them_those_of_unknown_cost(
    tiny: str, tmp_path: Path
) -> None:
    jobs = left(read_table(tiny), [])
    names = [job.overrides["method"] for job in jobs]
    assert {"snip", "random", "dense"} == set(names)
    for number, (method, seconds) in enumerate(((SNIP, 1.0), (SNIP, 3.0), (RANDOM, 9.0))):
        put(tmp_path, method, number + 7, seconds=seconds)
    order = [job.overrides["method"] for job in longest_first(jobs, find_runs(tmp_path))]
    # nothing is known of dense runs, but they have the model and data of the others: their median
    wanted = {"random": 9.0, "dense": 3.0, "snip": 2.0}
    assert order == sorted(names, key=lambda name: -wanted[name])
    assert longest_first(jobs, []) == jobs  # all train alike long


def test_the_commands_of_missing_runs_name_no_launcher(
    tiny: str, tmp_path: Path, dimred: Callable[..., Outcome]
) -> None:
    launcher = ("hydra/launcher=slurm", "hydra.launcher.partition=gpu")
    shown = dimred("table", tiny, f"outputs={tmp_path}", *launcher).out
    assert "dimred train" in shown and "launcher" not in shown
    asked = request(parser().parse([tiny, *launcher, "--config-dir", str(tmp_path)]))
    assert [*asked.where_of_a_run] == ["hydra.searchpath"]


def test_two_commands_share_the_runs_of_a_table(
    start: Callable[..., Command], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(TINY.split("published")[0].replace("steps=2", "steps=40"))
    part = ("--only", "SNIP", "--seeds", "1", f"outputs={tmp_path}")
    arguments = ("reproduce", str(tmp_path / "mine.yaml"), *part)
    both = [start(*arguments) for _ in range(2)]
    for command in both:
        outcome = command.wait()
        assert outcome.code == 0, outcome.err
        assert outcome.out.count(": test accuracy ") == 2
    assert len(list(tmp_path.glob("runs/*/*/*/result.json"))) == 2


def test_a_shorter_or_changed_table_never_passes_for_the_real_one(
    tiny: str, tmp_path: Path, dimred: Callable[..., Outcome]
) -> None:
    done = dimred(
        "reproduce",
        tiny,
        "--scale",
        "0.5",
        "--seeds",
        "1",
        "--only",
        "SNIP / 0.5",
        f"outputs={tmp_path}",
        "model=lenet300",
    )
    assert done.code == 0, done.err
    marked = "NOT the published settings: recipe shortened to 0.5 of its length, model=lenet300"
    (page,) = (tmp_path / "tables").glob("*.md")
    assert page.name == "tiny--recipe-shortened-to-0.5-of-its-length-model=lenet300-seed-0.md"
    assert marked in page.read_text() and marked in done.out
    assert marked in json.loads(page.with_suffix(".json").read_text())["title"]
    assert marked in FORMATS["latex"](
        filled(tiny, tmp_path, change=Change(0.5, (("model", "lenet300"),)), seeds=[0])
    )
    real = filled(tiny, tmp_path)
    assert cell(real, "SNIP", "0.5")["n"] == 0 and real["near_misses"] == [
        "1 run: recipe.steps is 1 instead of 2"
    ]


def test_other_seeds_never_get_the_name_of_the_published_table(tiny: str) -> None:
    def asked(*arguments: str) -> Request:
        return request(parser().parse([tiny, *arguments]))

    assert file_name(asked()) == file_name(asked("--seeds", "1,0")) == "tiny"
    assert file_name(asked("--seeds", "1")) == "tiny--seed-0"
    assert "NOT the published settings: seed 0" in asked("--seeds", "1").table.heading
    long = [
        "--scale",
        "0.5",
        *(f"recipe.{key}=0" for key in ("lr", "momentum", "weight_decay", "gamma", "warmup")),
    ]
    assert file_name(asked("--seeds", "3", *long)) != file_name(asked("--seeds", "4", *long))


def test_an_excerpt_shows_what_the_whole_shows(
    tiny: str, tmp_path: Path, dimred: Callable[..., Outcome]
) -> None:
    put(tmp_path, "dataset=digits recipe.steps=2 method=dense", 0, test_accuracy=0.99)
    for method, accuracy in ((SNIP, 0.8), (RANDOM, 0.9)):
        put(tmp_path, method, 0, test_accuracy=accuracy)
        put(tmp_path, method.replace("sparsity=0.5", "sparsity=0.9"), 0, test_accuracy=accuracy)
    for pattern, inside, outside in (
        ("SNIP", "80.00 (1 of 2)", "random"),
        ("random", "**90.00** (1 of 2)", "SNIP |"),
        (r"dense / 0\.9", "99.00 (1 of 2)", "random"),
    ):
        shown = dimred("table", tiny, "--runs", str(tmp_path), "--only", pattern).out
        assert inside in shown and outside not in shown and "not counted" not in shown
        assert ("**80.00**" not in shown) and "an excerpt: cells named like" in shown.splitlines()[
            0
        ]
    shown = dimred("table", tiny, "--runs", str(tmp_path), "--only", "(dense|SNIP) / 0.5").out
    assert "SNIP keeps 99 %: does not hold so far" in shown and "SNIP beats random" not in shown


@pytest.mark.parametrize(
    "typed, what",
    [
        ("sparsity=0.98", "the columns of the table set sparsity"),
        ("method=lamp", "the rows of the table set method"),
        ("method.sparsity=0.98", "the columns"),
        ("method._target_=x.Y", "the rows"),
        ("model=conv2", "part 'one'"),
        ("recipe.epochs=3", "the rows of the table set recipe.steps"),
    ],
)
def test_settings_that_distinguish_cells_cannot_be_changed(
    typed: str, what: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(
        TINY.split("published")[0].replace(
            "random: method=random", ("random: method=random recipe.steps=3")
        )
        + "parts: {one: {settings: model=lenet300}, two: {}}\n"
    )
    with pytest.raises(
        UserError, match=f"{re.escape(typed)} is not allowed: .*{what}.*--only REGEX"
    ):
        request(parser().parse([str(tmp_path / "mine.yaml"), typed]))
    for allowed in ("recipe.lr=0.01", "recipe.momentum=0.5", "recipe=digits", "allocation=erk"):
        asked = request(parser().parse([str(tmp_path / "mine.yaml"), allowed]))
        assert allowed in asked.whole.heading


def test_a_scaled_recipe_is_shorter_and_the_methods_steps_stay() -> None:
    short = read_table("rigl_wrn22_2", Change(0.1)).parts[0].cells
    long = shipped("rigl_wrn22_2").parts[0].cells
    [rewound] = {
        int(cell.overrides["method.rewind_step"])
        for cell in read_table("interspace", Change(0.1)).parts[0].cells
        if "method.rewind_step" in cell.overrides
    }
    assert rewound == 100  # a point of training, as milestones are
    for one, other in zip(short, long, strict=True):
        if one.description and other.description:
            assert one.description["recipe"]["epochs"] == other.description["recipe"]["epochs"] / 10
            assert one.description["method"] == other.description["method"]


def test_costs_are_estimated_from_runs_with_the_same_model_and_data(
    tiny: str, tmp_path: Path
) -> None:
    put(
        tmp_path,
        SNIP.replace("steps=2", "steps=4"),
        0,
        test_accuracy=0.9,
        seconds=8.0,
        training_flops=4e6,
    )
    jobs = left(read_table(tiny), runs := find_runs(tmp_path))
    assert len(jobs) == 10
    assert (
        "time: about 40 s" in (text := estimate(jobs, runs))
        and "training FLOPs: about 2.00e+07" in text
    )
    assert "time: unknown" in estimate(jobs, [])
