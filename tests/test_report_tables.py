"""Published tables: which runs their cells are, how they are found, filled, run and written."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from conftest import ROOT, Outcome, compose
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from scipy import stats

from dimred.cli.main import main
from dimred.cli.reproduce import file_name
from dimred.cli.table import Request, outputs_of, parser, request
from dimred.errors import UserError
from dimred.report.compose import composed, values_alone
from dimred.report.measures import MEASURES
from dimred.report.runs import find_runs
from dimred.report.tables.change import Change
from dimred.report.tables.excerpt import only
from dimred.report.tables.fill import environment, fill, summary
from dimred.report.tables.formats import FORMATS
from dimred.report.tables.lines import measured
from dimred.report.tables.plan import Job, estimate, left, sweeps
from dimred.report.tables.published import read_table
from dimred.report.tables.table import Cell, Table
from dimred.runs.config.files import AS_BEFORE, GROUPS, description, names, read, targets
from dimred.runs.config.schema import checked, checked_group
from dimred.runs.identity import describe

TABLES = names("table")
TINY = """
title: A tiny table
source: nowhere
settings: dataset=digits recipe.steps=2
seeds: [0, 1]
rows: {method: {dense: method=dense, SNIP: method=snip, random: method=random, theirs: null}}
columns: {sparsity: {"0.5": sparsity=0.5, "0.9": sparsity=0.9}}
baselines: [dense]
published:
  - {source: one, values: {dense: [97.0], SNIP: [90.0±0.1, null], theirs: [88, 87]}, tolerance: 0.5}
  - {source: other, values: {SNIP: [90.0±4.0]}, recalled: true, best_test_epoch: true, tolerance: 0.5}
claims:
  - {says: SNIP keeps 99 %, cell: [SNIP, "0.5"], against: [dense], ratio_at_least: 0.99}
  - {says: SNIP beats random, cell: [SNIP, "0.9"], against: [random, "0.9"], difference_at_least: 0}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A table of one's own."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    return str(tmp_path / "tiny.yaml")


def put(outputs: Path, overrides: str, seed: int = 0, **result: Any) -> Path:
    """The folder of a run that ended like this; its name says nothing."""
    folder = outputs / "anywhere" / f"{len(list(outputs.rglob('config.yaml')))}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        OmegaConf.to_yaml(composed_fully(f"{overrides} seed={seed}"), resolve=True)
    )
    if result:
        (folder / "result.json").write_text(json.dumps({"status": "done", **result}))
    return folder


@cache
def composed_fully(overrides: str) -> DictConfig:
    return compose(*overrides.split(), "data_dir=/somewhere/else")


SNIP, RANDOM = (
    f"dataset=digits recipe.steps=2 method={name} sparsity=0.5" for name in ("snip", "random")
)


def filled(table: str, outputs: Path, **changes: Any) -> dict[str, Any]:
    return fill(read_table(table, **changes), find_runs(outputs))


def cell(document: dict[str, Any], *labels: str) -> dict[str, Any]:
    return next(
        c
        for part in document["parts"]
        for c in part["cells"]
        if (*c["row"], *c["column"]) == labels
    )


def test_a_cell_whose_method_left_much_to_the_final_cut_is_marked(
    tiny: str, tmp_path: Path
) -> None:
    few, much = tmp_path / "few", tmp_path / "much"
    put(few, RANDOM, test_accuracy=0.5, measures={"own_density": 0.55, "left_to_cut": 0.1})
    put(much, SNIP, test_accuracy=0.5, measures={"own_density": 0.56, "left_to_cut": 0.12})
    document = filled(tiny, tmp_path)
    assert measured(cell(document, "SNIP", "0.5"), "{}").startswith("50.00 ‡ (1 of 2)")
    assert "‡" not in measured(cell(document, "random", "0.5"), "{}")
    for name in ("md", "latex"):
        assert "the final cut pruned more than a tenth" in FORMATS[name](document)
        assert "‡" not in FORMATS[name](filled(tiny, few))


# -- the tables that are shipped --------------------
@cache
def shipped(name: str) -> Table:
    return read_table(name)


def with_places(group: str, described: Any) -> Any:
    """A description has the classes of dimred by their names alone."""
    if not isinstance(described, dict):
        return described
    found = {target.rpartition(".")[2]: target for target in targets(group)}
    allocations = {target.rpartition(".")[2]: target for target in targets("allocation")}
    plain = {key: with_places("allocation", value) for key, value in described.items()}
    name = plain.get("_target_")
    return plain | {"_target_": (found | allocations)[name]} if name else plain


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_of_a_shipped_table_is_a_run_that_can_be(name: str) -> None:
    table = shipped(name)
    assert table.title and table.source and table.notes
    cells = [cell for part in table.parts for cell in part.cells if cell.description]
    seen = set()
    for each in cells:
        for group in GROUPS.keys() & each.description.keys():
            if (text := json.dumps(each.description[group], sort_keys=True)) not in seen:
                seen.add(text)
                left_out = AS_BEFORE.get(group, {}).keys() - each.description[group].keys()
                checked_group(
                    with_places(group, each.description[group]),
                    group,
                    ("data_dir", "workers", *GROUPS[group], *left_out),
                )
    assert cells and all(each.overrides.get("method") for each in cells)


def test_what_a_table_composes_is_what_hydra_composes() -> None:
    """In as few cells as have every dataset, model, recipe, ..., every method that chooses others,
    and every key."""
    cells = {
        each: {
            key if "." in key or (key == "method" and values_alone(value)) else f"{key}={value}"
            for key, value in cell.overrides.items()
            if key != "sparsity"
        }
        for name in ("survey_digits", "interspace", "cops", "rigl_imagenet_resnet50")
        for i, part in enumerate(shipped(name).parts)
        for each, cell in {(name, i, cell.row, cell.column): cell for cell in part.cells}.items()
        if cell.description
    }
    left_over = set().union(*cells.values())
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        while left_over:
            name, i, row, column = best = max(cells, key=lambda each: len(cells[each] & left_over))
            left_over -= cells[best]
            cell = next(
                c for c in shipped(name).parts[i].cells if (c.row, c.column) == (row, column)
            )
            cfg = hydra.compose(
                "config", [f"{key}={value}" for key, value in cell.overrides.items()]
            )
            wanted = describe(checked(cfg))
            del wanted["seed"]
            assert cell.description == wanted, cell.overrides


def test_the_survey_has_all_methods() -> None:
    for name in ("survey_digits", "survey_mnist", "survey_cifar10"):
        assert {
            each.overrides["method"] for part in shipped(name).parts for each in part.cells
        } == {
            method for method in names("method") if "???" not in read("method", method).values()
        }  # of another run


def test_the_page_on_tables_names_them_all() -> None:
    page = (ROOT / "docs/tables.md").read_text()
    assert all(f"`{name}`" in page for name in TABLES)


def test_published_numbers_that_were_recalled_are_marked_so() -> None:
    """Of 331 numbers that were once recalled, sources confirm 130: all of RigL's on ImageNet,
    SNIP's dense networks, and 37 of the comparison on CIFAR."""
    recalled = {
        name: sum(
            len(source.values)
            for part in shipped(name).parts
            for source in part.published
            if source.recalled
        )
        for name in TABLES
    }
    assert {name: count for name, count in recalled.items() if count} == {
        "grasp_cifar": 174 - 37,
        "missing_the_mark_resnet20": 60,
        "strong_tickets": 4,
    }


def test_freezenet_and_snip_differ_in_what_the_others_read_alone() -> None:
    part = shipped("freezenet_mnist").parts[0]
    one, other = (
        {
            (c.column): dict(c.description["method"])
            for c in part.cells
            if c.row == (row,) and c.description
        }
        for row in ("SNIP", "FreezeNet")
    )
    for column in one:
        assert one[column].pop("base") == "zero" and other[column].pop("base") == "init"
        assert (
            one[column].pop("_target_") != other[column].pop("_target_")
            and one[column] == other[column]
        )
    assert round(430_500 * (1 - one["0.9936 (×157)",]["sparsity"])) == 2742


# -- finding runs --------------------
def test_where_data_lie_and_how_they_are_read_does_not_matter() -> None:
    one, other = (
        compose("dataset=cifar10_jpeg", f"data_dir={where}", f"dataset.workers={n}", "device=cpu")
        for where, n in (("/here", 0), ("/there", 3))
    )
    assert describe(one) == describe(other)
    inside = OmegaConf.to_container(one, resolve=True)
    assert isinstance(inside, dict) and inside["dataset"]["path"].startswith("/here")
    assert description({str(key): value for key, value in inside.items()}) == composed(
        {"dataset": "cifar10_jpeg"}
    )


def test_runs_are_found_by_content_and_their_seeds_are_averaged(tiny: str, tmp_path: Path) -> None:
    put(tmp_path, SNIP, 0, test_accuracy=0.90)
    put(tmp_path, SNIP, 1, test_accuracy=0.92)
    put(tmp_path, SNIP, 7, test_accuracy=0.1)
    snip = cell(document := filled(tiny, tmp_path), "SNIP", "0.5")
    assert snip["mean"] == pytest.approx(91) and snip["n"] == 2 and not snip["missing"]
    assert any("not counted (see --seeds): seed 7" in line for line in document["remarks"])
    assert cell(filled(tiny, tmp_path, seeds=[0, 1, 7]), "SNIP", "0.5")["n"] == 3


def test_runs_with_other_settings_are_not_counted_and_named(tiny: str, tmp_path: Path) -> None:
    put(tmp_path, f"{SNIP} recipe.lr=0.5", 0, test_accuracy=0.9)
    put(tmp_path, f"{SNIP} recipe.lr=0.5", 1, test_accuracy=0.9)
    put(tmp_path, SNIP.replace("0.5", "0.7"), 0, test_accuracy=0.9)  # another experiment altogether
    document = filled(tiny, tmp_path)
    assert document["near_misses"] == ["2 runs: recipe.lr is 0.5 instead of 0.1"]
    assert cell(document, "SNIP", "0.5")["n"] == 0


def test_what_failed_or_is_unfinished_or_damaged_is_named(tiny: str, tmp_path: Path) -> None:
    put(tmp_path, SNIP, 0, status="failed", reason="the loss became nan")
    put(tmp_path, SNIP, 1)
    put(tmp_path, RANDOM, 0, test_accuracy=0.9).joinpath("result.json").write_text('{"status": "do')
    put(tmp_path, RANDOM, 1, test_accuracy=0.9).joinpath("config.yaml").write_text(
        "method: {_target_"
    )
    text = FORMATS["md"](filled(tiny, tmp_path))
    for part in (
        "SNIP / 0.5, seed 0 failed: the loss became nan",
        "SNIP / 0.5, seed 1 unfinished: interrupted, or",
        "random / 0.5, seed 0 damaged: result.json cannot be read",
        "config.yaml cannot be read",
    ):
        assert part in text
    assert re.search(r"\| SNIP +\| ours +\| failed ", text)


def test_a_run_without_config_is_damaged(tiny: str, tmp_path: Path) -> None:
    folder = put(tmp_path, SNIP, 0, test_accuracy=0.9)
    (folder / "config.yaml").unlink()
    assert filled(tiny, tmp_path)["remarks"] == [f"{folder} is damaged: config.yaml is missing"]


@pytest.mark.parametrize("value", ['"abc"', "[1]", "{}", "true", "NaN", "1e400", "1" + 400 * "0"])
def test_what_is_no_number_is_unknown_and_named_and_the_rest_is_shown(
    value: str, tiny: str, tmp_path: Path
) -> None:
    names = ("test_accuracy", "total", "dim", "storage_bytes", "seconds", "training_flops")
    Path(tiny).write_text(
        TINY.replace("seeds: [0, 1]", f"seeds: [0, 1]\nmeasures: {list(MEASURES)}")
    )
    folder = put(tmp_path, SNIP, 0, test_accuracy=0.9)
    (folder / "result.json").write_text(
        '{"status": "done", ' + ", ".join(f'"{name}": {value}' for name in names) + "}"
    )
    put(
        tmp_path,
        SNIP,
        1,
        test_accuracy=0.8,
        total=10,
        dim=1,
        storage_bytes=1,
        seconds=1,
        training_flops=1,
    )
    document = filled(tiny, tmp_path)
    assert (
        cell(document, "SNIP", "0.5")["mean"] == pytest.approx(80)
        and cell(document, "SNIP", "0.5")["n"] == 1
    )
    assert any(
        f"{folder} is damaged: result.json has test_accuracy=" in line
        for line in document["remarks"]
    )
    assert all(write(document) for write in FORMATS.values())
    assert estimate(left(read_table(tiny), []), find_runs(tmp_path))


@pytest.mark.parametrize("seed", ["abc", "[0]", "1.5", "true"])
def test_a_seed_that_is_none_is_damage(seed: str, tiny: str, tmp_path: Path) -> None:
    config = put(tmp_path, SNIP, 5, test_accuracy=0.9) / "config.yaml"
    put(tmp_path, SNIP, 7, test_accuracy=0.9)
    config.write_text(config.read_text().replace("seed: 5", f"seed: {seed}"))
    assert any("config.yaml describes no run" in line for line in filled(tiny, tmp_path)["remarks"])


def test_runs_of_several_versions_of_dimred_are_told(tiny: str, tmp_path: Path) -> None:
    put(tmp_path, SNIP, 0, test_accuracy=0.9, commit="a" * 40)
    assert len(environment(find_runs(tmp_path))) == 1
    put(tmp_path, SNIP, 1, test_accuracy=0.9, commit="b" * 40)
    line = environment(find_runs(tmp_path))[-1]
    assert "2 versions of dimred" in line and "aaaaaaaaaaaa (1 runs), bbbbbbbbbbbb (1 runs)" in line


def test_of_a_run_that_is_there_twice_the_newest_counts_and_that_is_said(
    tiny: str, tmp_path: Path
) -> None:
    put(tmp_path, SNIP, 0, test_accuracy=0.8)
    put(tmp_path, SNIP, 0, test_accuracy=0.9)
    put(tmp_path, SNIP, 0)
    document = filled(tiny, tmp_path)
    assert cell(document, "SNIP", "0.5")["mean"] == pytest.approx(90)
    assert any("in several folders" in line for line in document["remarks"])


def test_an_older_run_lacks_a_measure_and_keeps_the_others(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text(
        TINY.split("published")[0] + "measures: [test_accuracy, storage_bytes]\n"
    )
    old = put(tmp_path, SNIP, 0, test_accuracy=0.9)
    config = yaml.safe_load((old / "config.yaml").read_text())
    del config["basis"]  # there were none
    (old / "config.yaml").write_text(yaml.safe_dump(config))
    text = FORMATS["md"](filled(str(tmp_path / "old.yaml"), tmp_path))
    assert re.search(r"\| SNIP +\| 90.00 \(1 of 2\) +\| unknown ", text)
    assert "1 runs have no storage_bytes: an older version" in text


# -- statistics --------------------
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=9, unique=True))
def test_mean_deviation_and_interval_are_those_of_scipy(values: list[float]) -> None:
    ours = summary(values)
    assert ours["mean"] == pytest.approx(stats.tmean(values)) and ours["n"] == len(values)
    assert ours["std"] == pytest.approx(stats.tstd(values))
    low, high = stats.t.interval(0.95, len(values) - 1, stats.tmean(values), stats.sem(values))
    assert (ours["low"], ours["high"]) == pytest.approx((low, high))


def test_one_value_has_neither_deviation_nor_interval() -> None:
    assert summary([3.0]) == {"mean": 3.0, "std": None, "n": 1, "low": None, "high": None}


def test_the_best_of_a_column_is_bold_baselines_do_not_compete_and_ties_share_it(
    tiny: str, tmp_path: Path
) -> None:
    put(tmp_path, "dataset=digits recipe.steps=2 method=dense", 0, test_accuracy=0.99)
    put(tmp_path, SNIP, 0, test_accuracy=0.950001)
    put(tmp_path, RANDOM, 0, test_accuracy=0.95)
    put(tmp_path, SNIP.replace("sparsity=0.5", "sparsity=0.9"), 0, test_accuracy=0.95)
    put(tmp_path, RANDOM.replace("sparsity=0.5", "sparsity=0.9"), 0, test_accuracy=0.9)
    document = filled(tiny, tmp_path)
    bold = {(*c["row"], *c["column"]) for c in document["parts"][0]["cells"] if c["best"]}
    assert bold == {("SNIP", "0.9")}  # alone at 0.9; at 0.5 all that compete are printed alike
    assert "**95.00** (1 of 2)" in FORMATS["md"](document)
    dense = [c for c in document["parts"][0]["cells"] if c["row"] == ("dense",)]
    assert len(dense) == 1  # sparsity is nothing to dense, so it is shown once


def test_differences_beyond_the_tolerance_are_flagged_and_claims_are_judged(
    tiny: str, tmp_path: Path
) -> None:
    for seed, accuracy in enumerate((0.95, 0.96)):
        put(tmp_path, SNIP, seed, test_accuracy=accuracy)
    put(tmp_path, "dataset=digits recipe.steps=2 method=dense", 0, test_accuracy=0.97)
    document = filled(tiny, tmp_path)
    first, second = cell(document, "SNIP", "0.5")["published"]
    assert first["difference"] == pytest.approx(5.5) and first["outside"] and not first["recalled"]
    assert second["allowed"] == 8.0 and not second["outside"] and second["recalled"]
    holds, unknown = document["parts"][0]["claims"]
    assert holds["verdict"] == "does not hold so far" and holds["found"] == pytest.approx(95.5 / 97)
    assert unknown["verdict"] == "open"
    text = FORMATS["md"](document)
    assert (
        "+5.50 **!**" in text and "90.0 ± 4.0 †" in text and "published b, best test epoch" in text
    )
    assert (
        "does not hold so far (95.50 against 97.00: 0.9845, at least 0.99 is claimed; 2 and 1 runs)"
        in text
    )
    assert re.search(r"\| theirs +\| published a +\| 88 +\| 87 ", text)  # what was only published


def test_a_claim_is_judged_for_good_when_no_seed_is_missing(tiny: str, tmp_path: Path) -> None:
    for seed in (0, 1):
        put(tmp_path, SNIP, seed, test_accuracy=0.9)
    put(tmp_path, "dataset=digits recipe.steps=2 method=dense", 0, test_accuracy=0.9)
    assert filled(tiny, tmp_path)["parts"][0]["claims"][0]["verdict"] == "holds so far"
    put(tmp_path, "dataset=digits recipe.steps=2 method=dense", 1, test_accuracy=0.9)
    assert filled(tiny, tmp_path)["parts"][0]["claims"][0]["verdict"] == "holds"


@pytest.mark.parametrize(
    "measure, mean, std, text",
    [
        ("test_accuracy", 98.256, 0.104, "98.26 ± 0.10"),
        ("test_accuracy", 98.0, 0.0, "98.00 ± 0.00"),
        ("dim", 266200.0, 0.0, "266,200"),
        ("storage_bytes", 10954.0, 12.0, "11.0 kB"),
        ("storage_bytes", 950.0, 20.0, "950 ± 20 B"),
        ("training_flops", 3.2e18, None, "3.20 E"),
        ("training_flops_relative", 0.2333, 0.0001, "0.233"),
        ("density", 0.05, None, "0.0500"),
    ],
)
def test_numbers_are_written_with_their_unit_and_the_spread_that_can_be_seen(
    measure: str, mean: float, std: float | None, text: str
) -> None:
    assert MEASURES[measure].text(mean, std) == text


# -- formats --------------------
def test_every_format_says_the_same(tiny: str, tmp_path: Path) -> None:
    put(tmp_path, SNIP, 0, test_accuracy=0.95)
    document = filled(tiny, tmp_path)
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](document))))
    snip = next(row for row in rows if row["row"] == "SNIP" and row["column"] == "0.5")
    assert float(snip["mean"]) == pytest.approx(95) and snip["published_value"] == "90.0"
    assert snip["missing_seeds"] == "1"
    data = json.loads(FORMATS["json"](document))
    assert data["parts"][0]["cells"][1]["mean"] == pytest.approx(95) and data["changed"] == ""
    latex = FORMATS["latex"](document)
    assert (
        r"95.00 (1 of 2)" in latex
        and r"90.0 $\pm$ 4.0 $\dagger$" in latex
        and latex.count(r"\begin{table}") == 1
    )
    lines = [line for line in FORMATS["md"](document).splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1 and len({line.count("|") for line in lines}) == 1


def test_no_format_writes_control_characters(tiny: str, tmp_path: Path) -> None:
    put(tmp_path, SNIP, 0, status="failed", reason="a\x1b[31m\x9b b")
    document = filled(tiny, tmp_path)
    for name, write in FORMATS.items():
        text = write(document)
        assert "[31m" in text and not re.search("[\x1b\x9b]", text), name
    failed = [
        run for part in json.loads(text)["parts"] for c in part["cells"] for run in c["failed"]
    ]
    assert failed[0]["why"] == "a\x1b[31m\x9b b"


def test_latex_and_csv_say_what_markdown_says(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY.replace("source: nowhere", "notes: [Recipe of 90 %]"))
    put(tmp_path, SNIP, 0, test_accuracy=0.5)
    document = filled(tiny, tmp_path)
    latex = FORMATS["latex"](document)
    assert ". ." not in latex and "tiny table. Test accuracy" in latex
    assert "more than the tolerance" in latex and r"\textbf{!}" in latex
    assert r"\par Recipe of 90 \%" in latex and r"\par published b, best test epoch: other" in latex
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](document))))
    assert {row["best_test_epoch"] for row in rows if row["source"] == "other"} == {"True"}
    assert {row["best_test_epoch"] for row in rows if row["source"] == "one"} == {"False"}


def test_missing_cells_show_the_command_that_makes_them(tiny: str, tmp_path: Path) -> None:
    document = fill(read_table(tiny), [], {"outputs": str(tmp_path / "out")})
    missing = cell(document, "SNIP", "0.9")
    assert missing["command"] == (
        "dimred train -m dataset=digits recipe.steps=2 method=snip sparsity=0.9 "
        f"outputs={tmp_path / 'out'} seed=0,1"
    )
    assert measured(missing, "{}") == "missing" and missing["command"] in FORMATS["md"](document)


# -- running --------------------
@pytest.mark.parametrize("name", TABLES)
def test_the_sweeps_of_a_table_are_exactly_its_runs(name: str) -> None:
    jobs = left(shipped(name), [])
    assert all_of(sweeps(jobs)) == sorted(sorted(job.overrides.items()) for job in jobs)
    assert len(sweeps(jobs)) <= max(20, len(jobs) // 10)


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


def all_of(boxes: list[dict[str, tuple[str, ...]]]) -> list[list[tuple[str, str]]]:
    return sorted(
        sorted(zip(box, values, strict=True))
        for box in boxes
        for values in itertools.product(*box.values())
    )


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
    assert "6 runs are left: 2 steps of training each, 12 in all" in dry.out
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
    assert "2 runs are left" in again.out and "time: about" in again.out
    assert (tmp_path / "tables/mine.md").read_text() == page
    shown = dimred("table", str(tmp_path / "mine.yaml"), f"outputs={tmp_path}", "device=cpu")
    assert shown.code == 0 and page.startswith(shown.out)


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
def test_what_tells_cells_apart_cannot_be_typed(typed: str, what: str, tmp_path: Path) -> None:
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


def test_costs_are_judged_by_runs_of_the_same_model_and_data(tiny: str, tmp_path: Path) -> None:
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


# -- questions and mistakes --------------------
def test_tables_are_shown_without_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from dimred.cli.main import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    for arguments in (
        ["table"],
        ["table", "survey_digits", "--runs", str(tmp_path)],
        ["reproduce", "survey_digits", "--dry-run", f"outputs={tmp_path}"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert re.search(r"\n\d+ runs are left", done.stdout)


def test_cells_are_chosen_by_their_name() -> None:
    (part,) = only(shipped("survey_digits"), r"0\.98: .*: rigl$").parts
    assert part.name == "Sparsity 0.98" and len(part.cells) == 1


@pytest.mark.parametrize(
    "arguments, part",
    [
        ("table pai_cifar10_vg16", "Did you mean 'pai_cifar10_vgg16'"),
        ("table cops --runs nowhere", "no folder nowhere"),
        ("table cops --format tex", "Allowed: csv, json, latex, md"),
        ("table cops extra", "name one table (got cops extra)"),
        ("table cops --scale 2", "--scale 2 is not allowed"),
        ("reproduce cops --scale x", "--scale x is not allowed"),
        ("reproduce cops --seeds x", "--seeds x is not allowed"),
        ("reproduce", "got no name"),
        ("reproduce cops --dry", "unknown option --dry"),
        ("reproduce cops seed=1", "--seeds 0,1,2"),
        ("reproduce cops recipe.epoch=1", "Did you mean 'epochs'"),
        ("reproduce cops epochs=1", "unknown key epochs"),
        ("reproduce cops dataset=mnits", "Did you mean 'mnist'"),
        ("reproduce cops --runs x", "outputs=DIR"),
        ("reproduce cops --only SNAP", "no cell of cops is named like 'SNAP'"),
        ("table missing.yaml", "unknown table"),
        ("table cops --only (", "is not a regular expression"),
        ("table cops --onyl x", "Did you mean '--only'"),
        (
            "table cops foo=1",
            "Allowed: allocation, basis, checkpoint_seconds, data_dir, dataset, device, exclude, "
            "incl",
        ),
        ("table cops --seeds", "--seeds N"),
        ("table cops --scale", "--scale FRACTION"),
        ("table cops --only", "--only REGEX"),
        ("table cops --seeds 0", "Seed 0 alone: --seeds 1"),
        ("reproduce cops --dry-run recipe.epochs=abc", "recipe.epochs=abc is not allowed"),
        (
            "reproduce cops --dry-run recipe.epochs=abc --scale 0.5",
            "recipe.epochs=abc is not allowed",
        ),
        ("table cops recipe.steps=[1]", "recipe.steps=[1] is not allowed"),
    ],
)
def test_a_mistake_is_answered_in_one_message(
    arguments: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 1
    err = capsys.readouterr().err
    assert part in err and "unexpected" not in err


@pytest.mark.parametrize("command", ["mask show {}", "export {} file.dimred"])
def test_what_is_no_run_is_told_from_one_that_is_not_finished(
    command: str, tmp_path: Path, dimred: Callable[..., Outcome]
) -> None:
    assert "that is no run (it has no config.yaml)" in dimred(*command.format(tmp_path).split()).err
    (tmp_path / "config.yaml").touch()
    assert "the run is not finished" in dimred(*command.format(tmp_path).split()).err


@pytest.mark.parametrize(
    "change, part",
    [
        (("title: A tiny table", ""), "has no title"),
        (("tolerance: 0.5", "tolerence: 0.5"), "tolerence"),
        (("title:", "titel:"), "Did you mean 'title'"),
        (("method=snip", "method=snap"), "'snip'"),
        (("[88, 87]", "[88, 87, 86]"), "more numbers"),
        (("theirs: [88", "nobody: [88"), "which is not a cell"),
        (("method=dense", "dense"), "cannot understand 'dense'"),
        (("97.0", "about 97"), "about 97"),
        (
            ("seeds: [0, 1]", "seeds: [0]\nmeasures: [test_acuracy]"),
            "a list of some of test_accuracy,",
        ),
        (("seeds: [0, 1]", "seeds: [0]\nmeasures: []"), "a list of some of test_accuracy,"),
        (("seeds: [0, 1]", ""), "has no seeds"),
        (("seeds: [0, 1]", "seeds: [-1]"), "whole numbers"),
        (("seeds: [0, 1]", 'seeds: "0,1"'), "seeds: '0,1' is not allowed"),
        (
            ("seeds: [0, 1]", "seeds: [0]\nnotes: hello"),
            "notes: 'hello' is not allowed. It must be a list of text",
        ),
        (("method=snip", "method=snip seed=3"), "seed=3 is not allowed in a table"),
        (("method=snip", "method=snip outputs=here"), "outputs=here is not allowed in a table"),
        (("random: method", "dense: method"), "'dense' is there twice"),
        (("theirs: [88, 87]", 'theirs: "88"'), "It must be a list of numbers"),
        (("tolerance: 0.5", "tolerance: half"), "tolerance: 'half' is not allowed"),
        (("recalled: true", 'recalled: "no"'), "true or false"),
        (("recalled: true", "tolerence: 1"), "'tolerance'"),
        (("recalled: true", "measure: dimm"), "It must be one of test_accuracy,"),
        (("recalled: true", "measure: dim"), "which is not a measure of the table"),
        (("ratio_at_least: 0.99", "ratio_atleast: 0.99"), "Did you mean 'ratio_at_least'"),
        (("ratio_at_least: 0.99", "ratio_at_least: a"), "must be a number"),
        (("ratio_at_least: 0.99", "measure: dim"), "must have either"),
        (("ratio_at_least: 0.99", "ratio_at_least: null"), "must have either"),
        (("baselines: [dense]", "baselines: dense"), "a list of labels"),
        (("rows: {", "rows: }"), "be read"),
        (("baselines: [dense]", "baselines: [dnse]"), "Did you mean 'dense'"),
        (("seeds: [0, 1]", "parts: [one]"), "parts by their name"),
    ],
)
def test_a_table_of_ones_own_is_read_strictly(
    change: tuple[str, str], part: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(TINY.replace(*change))
    with pytest.raises(UserError, match=re.escape(part)):
        read_table(str(tmp_path / "mine.yaml"))


def test_a_method_of_ones_own_has_a_table_too(
    tmp_path: Path, dimred: Callable[..., Outcome]
) -> None:
    (tmp_path / "mine/method").mkdir(parents=True)
    (tmp_path / "mine/method/few.yaml").write_text((ROOT / "conf/method/snip.yaml").read_text())
    (tmp_path / "few.yaml").write_text(
        TINY.split("published")[0].replace("method=snip", "method=few")
    )
    unknown = dimred("reproduce", str(tmp_path / "few.yaml"), "--dry-run")
    assert unknown.code == 1 and "unknown method 'few'" in unknown.err
    done = dimred(
        "reproduce",
        str(tmp_path / "few.yaml"),
        "--config-dir",
        str(tmp_path / "mine"),
        "--seeds",
        "1",
        "--only",
        "SNIP",
        f"outputs={tmp_path}",
    )
    assert done.code == 0 and re.search(r"\| SNIP +\| \d\d\.\d\d \(1\)", done.out), done.err


def test_configurations_that_inherit_and_interpolate_have_tables_too(
    tmp_path: Path, dimred: Callable[..., Outcome]
) -> None:
    own = tmp_path / "my conf"  # a folder with a space, too
    for name, text in {
        "dataset/few": "defaults: [digits]\nval_fraction: 0.5\n",
        "recipe/slow": "defaults: [digits, _self_]\nlr: 0.02\nsteps: 2\n",
        "method/scaled": "defaults: [snip]\nexamples: ${recipe.batch_size}\n",
    }.items():
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / f"{name}.yaml").write_text(text)
    (tmp_path / "own.yaml").write_text(
        "title: Own\nseeds: [0]\nsettings: dataset=few recipe=slow\n"
        "rows: {method: {scaled: method=scaled recipe.batch_size=32, dense: method=dense}}\n"
    )
    arguments = (str(tmp_path / "own.yaml"), "--config-dir", str(own), f"outputs={tmp_path}")
    done = dimred("reproduce", *arguments)
    assert done.code == 0 and re.search(r"\| scaled +\| \d+\.\d\d ", done.out), done.err + done.out
    assert "no runs are missing" in dimred("reproduce", *arguments, "--dry-run").out
    config = yaml.safe_load(next(tmp_path.glob("runs/few/*/scaled-*/config.yaml")).read_text())
    assert (
        config["method"]["examples"],
        config["recipe"]["lr"],
        config["dataset"]["val_fraction"],
    ) == (32, 0.02, 0.5)


def test_old_runs_are_found_however_their_numbers_were_written(tiny: str, tmp_path: Path) -> None:
    folder = put(tmp_path, SNIP, 0, test_accuracy=0.9)
    config = folder / "config.yaml"
    for new, old in (
        ("epochs: 40", "epochs: 40.0"),
        ("warmup: 0.0", "warmup: 0"),
        ("lr: 0.1\n", "lr: 0.10000000000000002\n"),
        ("decay_all: false\n", "\n"),
    ):
        config.write_text(config.read_text().replace(new, old))
    assert cell(filled(tiny, tmp_path), "SNIP", "0.5")["n"] == 1


def test_a_table_of_ones_own_never_overwrites_another(
    tmp_path: Path, dimred: Callable[..., Outcome]
) -> None:
    (tmp_path / "cops.yaml").write_text(TINY)
    with pytest.raises(UserError, match=r"cops.yaml has the name of one of dimred's tables"):
        read_table(str(tmp_path / "cops.yaml"))
    for folder, title in (("one", "A tiny table"), ("two", "Another table")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text(TINY.replace("A tiny table", title))
    arguments = ("--seeds", "1", "--only", "dense", f"outputs={tmp_path}", "recipe.steps=1")
    assert dimred("reproduce", str(tmp_path / "one/mine.yaml"), *arguments).code == 0
    [written] = (tmp_path / "tables").glob("*.md")
    before = written.read_bytes()
    assert (
        f"written by `dimred reproduce {tmp_path}/one/mine.yaml --seeds 1 outputs="
        in before.decode()
    )
    refused = dimred("reproduce", str(tmp_path / "two/mine.yaml"), *arguments)
    assert refused.code == 1 and "holds another table ('A tiny table" in refused.err
    assert (
        written.read_bytes() == before
        and dimred("reproduce", str(tmp_path / "one/mine.yaml"), *arguments).code == 0
    )


def test_numbers_are_compared_as_decimals_and_printed_as_published(
    tiny: str, tmp_path: Path
) -> None:
    text = TINY.replace("97.0", "97.10").replace(
        "seeds: [0, 1]", "seeds: [0]\nmeasures: [test_error]"
    )
    Path(tiny).write_text(
        text.replace("[90.0±0.1, null]", "[1.70]").replace("tolerance: 0.5", "tolerance: 0.3")
    )
    put(tmp_path, SNIP, 0, test_accuracy=0.98)  # an error of 100 (1 - 0.98) = 2.0000000000000018
    snip = cell(document := filled(tiny, tmp_path), "SNIP", "0.5")
    assert snip["published"][0]["difference"] > 0.3 and not snip["published"][0]["outside"]
    assert "| 97.10 " in FORMATS["md"](document) and "| 1.70 " in FORMATS["md"](document)


@pytest.mark.parametrize(
    "runs, outputs",
    [
        ("outputs/runs", "outputs"),
        ("here/runs/digits/lenet300", "here"),
        ("elsewhere", "elsewhere"),
    ],
)
def test_missing_runs_go_where_they_will_be_found(runs: str, outputs: str) -> None:
    assert outputs_of(Path(runs)) == Path(outputs)


def test_tables_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    other.write_text(f"extends: {one}\n")
    for extended in (one, other):
        one.write_text(f"extends: {extended}\n")
        with pytest.raises(UserError, match=f"table {one} extends itself: .* -> {one}"):
            read_table(str(one))


def test_a_null_is_as_good_as_nothing(tiny: str) -> None:
    Path(tiny).write_text(
        TINY.replace("tolerance: 0.5", "tolerance: null, measure: null, note: null").replace(
            "ratio_at_least: 0.99", "ratio_at_least: 0.99, difference_at_least: null, measure: null"
        )
    )
    [part] = read_table(tiny).parts
    assert {(each.tolerance, each.measure, each.note) for each in part.published} == {
        (0.5, "test_accuracy", "")
    }
    assert {claim.measure for claim in part.claims} == {"test_accuracy"}


def test_a_table_may_extend_another(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "extends: survey_digits\nsettings: dataset=digits model=conv2\nseeds: [5]\n"
    )
    mine = read_table(str(tmp_path / "mine.yaml"))
    assert mine.title == shipped("survey_digits").title and mine.parts[0].seeds == (5,)
    assert mine.parts[0].cells[0].overrides["model"] == "conv2"
