"""Tests of differences over seeds, checked against textbooks, and where tables show them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome
from scipy import stats
from tables import RANDOM, SNIP, cell, filled, put

from dimred.errors import UserError
from dimred.report.tables.formats import FORMATS
from dimred.report.tables.paired import with_tests
from dimred.report.tables.significance import (
    holm,
    paired_t_test,
    power_of,
    seeds_needed,
    sign_test,
)

#: additional hours of sleep by two drugs in ten patients (Cushny and Peebles 1905, Student 1908)
SLEEP = (
    (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0),
    (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4),
)
DIFFERENCES = [round(one - other, 1) for one, other in zip(*SLEEP, strict=True)]


# -- statistics --------------------
def test_the_paired_t_test_has_the_p_value_of_students_sleep_data() -> None:
    """R: t.test(extra ~ group, sleep, paired = TRUE): t = -4.0621, df = 9, p-value = 0.002833."""
    assert paired_t_test(DIFFERENCES) == pytest.approx(0.002833, abs=5e-7)
    assert paired_t_test(DIFFERENCES) == pytest.approx(stats.ttest_rel(*SLEEP).pvalue)


def test_the_sign_test_leaves_out_ties_and_is_exact() -> None:
    """Nine patients slept longer with the second drug, and one as long: p = 2 / 2^9."""
    assert sign_test(DIFFERENCES) == 2 / 512
    assert sign_test([1, 1, 1, -1]) == pytest.approx(2 * (1 + 4) / 16)  # 0 or 1 of 4
    assert sign_test([1, -1]) == 1
    assert sign_test([1.0, 2.0, 3.0]) == 0.25


def test_without_spread_or_pairs_there_is_no_test() -> None:
    assert paired_t_test([0.5]) is None and paired_t_test([0.5, 0.5]) is None
    assert sign_test([0.0, 0.0]) is None and sign_test([]) is None
    assert seeds_needed(0.0, 1.0) is None and seeds_needed(1.0, 0.0) is None
    assert seeds_needed(1e-9, 1.0) is None


def test_holms_correction_has_the_values_of_the_textbook() -> None:
    """R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")."""
    adjusted = holm([0.01, 0.04, None, 0.03, 0.005])
    assert adjusted[:2] == pytest.approx([0.03, 0.06]) and adjusted[2] is None
    assert adjusted[3:] == pytest.approx([0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_a_small_medium_and_large_effect_need_the_pairs_of_the_textbook(
    effect: float, pairs: int
) -> None:
    """Cohen's effects for a paired t test, two-sided, 5 %, power 80 %: 199, 34 and 15 pairs."""
    assert seeds_needed(effect, 1.0) == seeds_needed(-2 * effect, 2.0) == pairs
    assert power_of(effect, pairs - 1) < 0.8 <= power_of(effect, pairs)


# -- tables --------------------
def put_sleep(outputs: Path, patients: int) -> list[int]:
    """Two methods whose accuracies differ as the hours of sleep do."""
    for overrides, hours in zip((SNIP, RANDOM), SLEEP, strict=True):
        for seed, value in enumerate(hours[:patients]):
            put(outputs, overrides, seed, test_accuracy=(50 + value) / 100)
    return list(range(patients))


def test_cells_are_paired_by_seed_with_the_row_they_are_compared_with(
    tiny: str, tmp_path: Path
) -> None:
    seeds = put_sleep(tmp_path, 10)
    put(tmp_path, SNIP, 10, test_accuracy=0.99)  # a seed without its pair
    document = with_tests(filled(tiny, tmp_path, seeds=[*seeds, 10]), "random", None)
    test = cell(document, "SNIP", "0.5")["test"]
    assert test["n"] == 10 and test["difference"] == pytest.approx(-1.58)
    # R: 95 percent confidence interval -2.4598858 -0.7001142
    assert (test["low"], test["high"]) == pytest.approx((-2.4598858, -0.7001142), abs=1e-6)
    assert test["p_t"] == test["p_t_holm"] == pytest.approx(0.002833, abs=5e-7)
    assert test["p_sign"] == 2 / 512
    assert cell(document, "random", "0.5")["test"] is None
    assert test["seeds_needed"] == seeds_needed(-1.58, test["std"])
    other = cell(with_tests(document, "random", 0.5), "SNIP", "0.5")["test"]
    assert other["detect"] == 0.5 and other["seeds_needed"] > test["seeds_needed"]


def test_every_format_shows_the_tests(
    tiny: str, tmp_path: Path, dimred: Callable[..., Outcome]
) -> None:
    put_sleep(tmp_path, 2)
    words = ["table", tiny, "--runs", str(tmp_path), "--against", "random"]
    outcome = dimred(*words, "--format", "json")
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    assert cell(document, "SNIP", "0.5")["test"]["n"] == 2
    text = FORMATS["md"](document)
    # of -1.2 and -2.4: t = -3 with one degree of freedom, so that p = 1 - 2 / pi atan(3)
    assert "| −1.80 ± 0.85 (2) [−9.42, +5.82] | 0.2   | 0.5      |" in text and "Holm" in text
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](document))))
    row = next(row for row in rows if row["row"] == "SNIP" and row["column"] == "0.5")
    assert float(row["test_p_sign_holm"]) == 0.5 and row["test_against"] == "random"
    assert float(row["test_p_t"]) == pytest.approx(1 - 2 / math.pi * math.atan(3))
    assert "p (sign)" in FORMATS["latex"](document)


def test_a_row_that_does_not_exist_is_answered_with_the_nearest(
    tiny: str, tmp_path: Path, dimred: Callable[..., Outcome]
) -> None:
    with pytest.raises(UserError, match="Did you mean 'SNIP'"):
        with_tests(filled(tiny, tmp_path), "SNAP", None)
    outcome = dimred("table", tiny, "--detect", "1")
    assert outcome.code == 1 and "--detect needs --against" in outcome.err
