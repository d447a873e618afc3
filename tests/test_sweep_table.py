"""The table at the end of a sweep: mean and standard deviation over seeds, every run once, in 100
columns."""

from __future__ import annotations

from typing import Any

from dimred.report.tables.sweep import sweep_table


def outcome(folder: str, *overrides: str, **result: Any) -> dict[str, Any]:
    return {
        "status": "done",
        "folder": folder,
        "overrides": ["recipe.epochs=5", *overrides],
        "test_accuracy": 0.5,
        "dim": 100,
        "density": 0.1,
        "training_flops": 2e9,
        "storage_bytes": 1000,
        "seconds": 1.0,
        **result,
    }


def failure(reason: str, *overrides: str) -> dict[str, Any]:
    return {"status": "failed", "reason": reason, "overrides": ["recipe.epochs=5", *overrides]}


def test_a_row_has_mean_and_sample_deviation_over_seeds() -> None:
    runs = [
        outcome(
            f"snip{seed}",
            "method=snip",
            f"seed={seed}",
            test_accuracy=accuracy,
            training_flops=flops,
        )
        for seed, accuracy, flops in ((0, 0.5, 1e9), (1, 0.7, 2e9), (2, 0.6, 3e9))
    ]
    header, row, *_ = sweep_table([*runs, outcome("other", "method=dense", "seed=0")]).splitlines()
    assert header.split()[:6] == ["run", "seeds", "test", "%", "dim", "nonzero"]
    assert row.split() == [
        "method=snip",
        "3",
        "60.00",
        "±",
        "10.00",
        "100",
        "0.1000",
        "2.00",
        "±",
        "1.00",
        "G",
        "1.00",
        "kB",
        "1.0",
        "±",
        "0.0",
        "s",
    ]


def test_a_run_that_several_combinations_share_is_shown_once() -> None:
    text = sweep_table(
        [
            outcome("dense", "method=dense", "sparsity=0.5"),
            outcome("dense", "method=dense", "sparsity=0.9"),
            outcome("snip", "method=snip", "sparsity=0.5"),
        ]
    )
    names = [line.split("  ")[0] for line in text.splitlines() if line.startswith("method")]
    assert names == ["method=dense", "method=snip sparsity=0.5"]
    assert text.endswith("3 runs, 0 failed (1 the same as another)")


def test_failures_are_listed_by_reason_with_their_runs() -> None:
    text = sweep_table(
        [
            failure("no norms", "model=lenet", "seed=0"),
            failure("no norms", "model=lenet", "seed=1"),
            outcome("good", "model=resnet20", "seed=0"),
        ]
    )
    assert "FAILED: no norms\n  model=lenet seed=0\n  model=lenet seed=1\n" in text
    assert text.endswith("3 runs, 2 failed")


def test_a_table_fits_a_hundred_columns_whatever_the_overrides() -> None:
    long = [
        f"recipe.weight_decay={i}e-4 method.path=/a/very/long/{'x' * 150}".split() for i in range(2)
    ]
    runs = [
        outcome(
            f"{i}{seed}",
            *long[i],
            f"seed={seed}",
            seconds=seed * 1e5,
            training_flops=1e15 * (seed + 1),
        )
        for i in range(2)
        for seed in range(2)
    ]
    text = sweep_table([*runs, failure("because " * 40, "seed=7")])
    assert max(map(len, text.splitlines())) <= 100


def test_a_number_that_a_search_has_drawn_has_four_digits_and_stays_on_its_line() -> None:
    drawn = ("recipe.lr=0.07093423478923", "recipe.weight_decay=1.2345678901e-05")
    text = sweep_table([outcome("a", *drawn, seconds=1.0), outcome("b", "recipe.lr=0.5")])
    assert "\nrecipe.lr=0.07093 recipe.weight_decay=1.235e-05  1  " in text.replace("      ", "  ")


def test_what_a_result_does_not_have_is_left_empty() -> None:
    older = outcome("old", "method=a")
    del older["storage_bytes"]
    assert "method=a" in sweep_table([older, outcome("new", "method=b")])
