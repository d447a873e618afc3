"""Any number of runs against any other, the points beside pictures, and pictures for papers."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome
from figures import change, change_config, folders, settings

from dimred.errors import UserError
from dimred.report.numbers import number_named
from dimred.report.pictures.catalogue import pictures
from dimred.report.pictures.picture import Picture
from dimred.report.pictures.style import COLOURS, PAPER, read_style, styled, styles_of
from dimred.report.pictures.versus import versus
from dimred.report.pictures.versus_marks import Request


def drawn(runs: Path, x: str, y: str, by: str) -> list[Picture]:
    found = settings(runs)
    every = [run for setting in found for run in setting.runs]
    return versus(found, Request(number_named(x, every), number_named(y, every), by))[0]


def values(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return result


def test_points_are_the_means_of_both_numbers_over_seeds(trained: Path) -> None:
    (picture,) = drawn(trained, "peak_memory_bytes", "test_accuracy", "method")
    (point,) = [p for p in picture.points if (p["method"], p["sparsity"]) == ("snip", 0.9)]
    results = [values(run) for run in folders(trained, "snip-s0.9-*")]
    memory = [result["peak_memory_bytes"] for result in results]
    accuracy = [100 * result["test_accuracy"] for result in results]
    assert point["peak_memory_bytes"] == pytest.approx(statistics.fmean(memory))
    assert point["peak_memory_bytes std"] == pytest.approx(statistics.stdev(memory))
    assert point["test accuracy %"] == pytest.approx(statistics.fmean(accuracy))
    assert point["test accuracy % std"] == pytest.approx(statistics.stdev(accuracy))
    assert point["seeds"] == 2 and len(picture.points) == 5


def test_runs_that_differ_in_x_share_a_picture_and_others_do_not(runs: Path) -> None:
    for run in folders(runs, "set-*-seed1-*"):
        change_config(run, "epochs: 3", "epochs: 5")
    (picture,) = drawn(runs, "recipe.epochs", "test_error", "method")
    assert {point["recipe.epochs"] for point in picture.points} == {3, 5}
    assert len(drawn(runs, "training_flops", "test_error", "method")) == 2
    for run in folders(runs, "snip-*"):
        change(run, model="lenet5")
    (picture,) = drawn(runs, "recipe.epochs", "dim", "model")
    assert {point["model"] for point in picture.points} == {"lenet300", "lenet5"}


def test_any_column_can_have_the_colours(trained: Path) -> None:
    (picture,) = drawn(trained, "density", "dim", "sparsity")
    assert [point["sparsity"] for point in picture.points] == ["0.5", "0.9", "0.5", "0.9", "none"]


@pytest.mark.parametrize("x", ["dim", "seed"])
def test_each_seed_has_its_own_points_if_it_is_x_or_has_the_colours(trained: Path, x: str) -> None:
    (picture,) = drawn(trained, x, "test_error", "seed")
    assert len(picture.points) == 10 and {point["seeds"] for point in picture.points} == {1}
    snip = [
        point for point in picture.points if (point["method"], point["sparsity"]) == ("snip", 0.5)
    ]
    results = {run["seed"]: run for run in map(values, folders(trained, "snip-s0.5-*"))}
    for point in snip:
        error = 100 * (1 - results[int(point["seed"])]["test_accuracy"])
        assert point["test error %"] == pytest.approx(error)
    assert {point["seed"] for point in snip} == {0, 1} if x == "seed" else {"0", "1"}


def test_seeds_have_ticks_at_whole_numbers(trained: Path) -> None:
    (picture,) = drawn(trained, "seed", "test_error", "method")
    (axes,) = picture.figure(10).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "1"]


def labels(picture: Picture) -> set[str]:
    return {text.get_text() for text in picture.figure(10, captioned=False).texts}


def test_a_label_has_all_that_tells_its_points_from_others(runs: Path) -> None:
    (picture,) = drawn(runs, "seconds", "test_error", "sparsity")
    wanted = {f"sparsity={s}, {method}" for s in (0.5, 0.9) for method in ("snip", "set")}
    assert labels(picture) == wanted | {"sparsity=none, dense"}
    assert "Lines" not in picture.caption
    for run in folders(runs, "*-seed1-*"):
        change_config(run, "lr: 0.1", "lr: 0.2")
    (picture,) = drawn(runs, "recipe.lr", "test_error", "method")
    wanted = {f"{method}, {share} %" for method in ("snip", "set") for share in (50, 90)}
    assert labels(picture) == wanted | {"dense"}
    assert "Lines connect runs that differ only in recipe.lr." in picture.caption


def test_models_of_one_name_have_labels_of_their_own(runs: Path) -> None:
    for run in folders(runs, "set-s0.9-seed1-*"):
        change_config(run, "init: xavier_normal", "init: zeros")
    (picture,) = drawn(runs, "dim", "test_error", "model")
    models = {label.partition(", ")[0] for label in labels(picture)}
    assert models == {"lenet300 (xavier_normal)", "lenet300 (zeros)"}


def test_only_pictures_that_are_drawn_are_numbered(runs: Path) -> None:
    for i, run in enumerate(folders(runs)):
        change_config(run, "epochs: 3", f"epochs: {i}")
    for run in folders(runs, "set-s0.9-seed1-*"):
        change(run, own_number=1)
    (picture,) = drawn(runs, "own_number", "dim", "method")
    assert picture.setting.startswith("digits-lenet300-epochs_") and "epochs" not in picture.title


def test_a_number_that_no_run_has_is_answered_with_the_nearest(
    dimred: Callable[..., Outcome], trained: Path
) -> None:
    for options, nearest in (
        (["--x", "traning_flops"], "'training_flops'"),
        (["--x", "dim", "--y", "recipe.epoch"], "'recipe.epochs'"),
        (["--x", "dim", "--by", "modle"], "'model'"),
        (["--y", "dim"], "--x"),
    ):
        outcome = dimred("plot", *options, "--runs", str(trained))
        assert outcome.code == 1 and nearest in outcome.err and not outcome.out, outcome.err


def test_the_points_of_a_picture_are_written_beside_it(
    dimred: Callable[..., Outcome], trained: Path, tmp_path: Path
) -> None:
    words = ["--x", "dim", "--runs", str(trained), "--out", str(tmp_path / "out")]
    outcome = dimred("plot", "curves", *words, "--paper", "--format", "svg")
    assert outcome.code == 0, outcome.err
    found = {path.name for path in (tmp_path / "out").iterdir()}
    setting = "digits-lenet300-epochs_3"
    names = ("curves-accuracy", "curves-loss", "test_accuracy-against-dim-by-method")
    for name in names:
        assert {f"{name}-{setting}-paper.svg", f"{name}-{setting}.csv"} <= found
    with open(tmp_path / "out" / f"curves-accuracy-{setting}.csv") as file:
        rows = list(csv.DictReader(file))
    (run, _) = folders(trained, "dense-*")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    wanted = [row for row in rows if (row["method"], row["curve"]) == ("dense", "train_accuracy")]
    assert len(wanted) == len(lines) and {row["seeds"] for row in wanted} == {"2"}


def test_a_picture_for_a_paper_is_as_wide_as_a_column_and_has_no_caption(trained: Path) -> None:
    (picture,) = pictures("sparsity", settings(trained))[0]
    with styled(PAPER.rc):
        bare, whole = picture.figure(3.35, captioned=False), picture.figure(3.35)
    texts = [[text.get_text() for text in figure.texts] for figure in (bare, whole)]
    assert not any("accuracy against" in text for text in texts[0])
    assert any("accuracy against" in text for text in texts[1])
    svg = picture.file("svg", PAPER).decode()
    assert f'width="{72 * 3.35:g}pt"' in svg


def test_a_style_file_sets_width_letters_and_the_colours_of_methods(
    trained: Path, tmp_path: Path
) -> None:
    style = tmp_path / "mine.mplstyle"
    style.write_text(
        "font.size: 12  # points\nfigure.figsize: 5, 1\n"
        'axes.prop_cycle: cycler(color=["#112233", "red"])\n'
    )
    look = PAPER.with_rc(read_style(style))
    assert look.colours == ["#112233", "#ff0000"]
    (picture,) = pictures("sparsity", settings(trained), look.colours)[0]
    svg = picture.file("svg", look).decode()
    assert 'width="360pt"' in svg and "#112233" in svg and "#ff0000" in svg
    assert not [colour for colour in COLOURS if colour in svg]
    with styled(look.rc):
        (axes,) = picture.figure(5, captioned=False).axes
        assert axes.xaxis.label.get_fontsize() == 12
        assert axes.texts[0].get_fontsize() == pytest.approx(12 * 8.5 / 9)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("fnt.size: 8", "'font.size'"),
        ("font.size: large", "font.size"),
        ("figure.figsize 8", "unknown parameter"),
    ],
)
def test_a_style_file_with_an_unknown_parameter_is_refused(
    text: str, part: str, tmp_path: Path
) -> None:
    (tmp_path / "wrong.mplstyle").write_text(text)
    with pytest.raises(UserError, match=r"wrong\.mplstyle") as error:
        read_style(tmp_path / "wrong.mplstyle")
    assert part in str(error.value)


def test_every_method_has_its_own_style_with_any_number_of_colours() -> None:
    methods = [f"m{i}" for i in range(27)]
    for count in (3, 4, 9):
        colours = [f"#0000{i:02d}" for i in range(count)]
        styles = styles_of(methods, [methods], colours)
        assert len(set(styles.values())) == 28
        assert {style.colour for style in styles.values()} - {styles["dense"].colour} == {*colours}
