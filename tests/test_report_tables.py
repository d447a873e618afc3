"""Published tables: how runs are found, what a cell shows, and how it is written."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
import yaml
from conftest import compose
from fixtures import TINY
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from scipy import stats
from tables import RANDOM, SNIP, cell, filled, put

from dimred.report.compose import composed
from dimred.report.measures import MEASURES
from dimred.report.runs import find_runs
from dimred.report.tables.costs import estimate
from dimred.report.tables.fill import environment, fill, summary
from dimred.report.tables.formats import FORMATS
from dimred.report.tables.lines import measured
from dimred.report.tables.plan import left
from dimred.report.tables.published import read_table
from dimred.runs.config.files import description
from dimred.runs.identity import describe


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


# -- finding runs --------------------
def test_the_place_of_data_and_how_they_are_read_do_not_matter() -> None:
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
def test_values_that_are_not_numbers_are_unknown_and_named_and_the_rest_is_shown(
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
def test_a_seed_that_is_not_a_number_is_damage(seed: str, tiny: str, tmp_path: Path) -> None:
    config = put(tmp_path, SNIP, 5, test_accuracy=0.9) / "config.yaml"
    put(tmp_path, SNIP, 7, test_accuracy=0.9)
    config.write_text(config.read_text().replace("seed: 5", f"seed: {seed}"))
    assert any("config.yaml describes no run" in line for line in filled(tiny, tmp_path)["remarks"])


def test_runs_of_several_versions_of_dimred_are_reported(tiny: str, tmp_path: Path) -> None:
    put(tmp_path, SNIP, 0, test_accuracy=0.9, commit="a" * 40)
    assert len(environment(find_runs(tmp_path))) == 1
    put(tmp_path, SNIP, 1, test_accuracy=0.9, commit="b" * 40)
    line = environment(find_runs(tmp_path))[-1]
    assert "2 versions of dimred" in line and "aaaaaaaaaaaa (1 run), bbbbbbbbbbbb (1 run)" in line


def test_of_two_folders_with_the_same_run_the_newest_counts_and_both_are_named(
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
    assert "1 run without storage_bytes: an older version" in text


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
        "does not hold so far (95.50 against 97.00: 0.9845, at least 0.99 is claimed; 2 and 1 run)"
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


def test_measured_times_are_in_milliseconds_and_of_the_arithmetic_of_the_run() -> None:
    times = {"1": {"dense": 4e-5, "mixed": 9e-5}, "128": {"dense": 4e-3, "mixed": 2e-3}}
    result = {"arithmetic": "mixed", "inference_seconds": times, "step_seconds": 1.5e-3}
    for measure, expected in (
        ("inference_ms_1", 0.09),
        ("inference_ms_128", 2.0),
        ("step_seconds", 1.5),
    ):
        assert MEASURES[measure].value(result) == pytest.approx(expected)
    for damaged in ({}, {"inference_seconds": 3}, {**result, "arithmetic": "other"}):
        assert MEASURES["inference_ms_128"].value(damaged) is None


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
