"""Pictures of masks, weights and supports through time, and the numbers behind them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from figures import change, folders, settings
from matplotlib.backends.backend_agg import FigureCanvasAgg
from safetensors.numpy import save_file

from dimred.cli.plot import parse
from dimred.errors import UserError
from dimred.report.pictures.catalogue import pictures
from dimred.report.pictures.history import History, thinned
from dimred.report.pictures.layer_names import labels
from dimred.report.pictures.one_run import draw_histograms, histogram, inputs_of, map_of, tiled
from dimred.report.pictures.picture import WIDE
from dimred.report.pictures.points import Point, layer_shares
from dimred.report.pictures.sheet import Sheet, width_of
from dimred.report.pictures.style import PAPER, PLAIN, Look, styled
from dimred.report.runs import find_runs


# -- supports through time --------------------
def test_a_run_writes_the_trained_weights_and_the_overlap_of_each_layer(trained: Path) -> None:
    for run in folders(trained, "set-s0.5-*"):
        result = json.loads((run / "result.json").read_text())
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        counts = [layer["trained"] for layer in result["layers"].values()]
        assert lines[-1]["trained_by_layer"] == counts
        for line in lines:
            assert sum(line["trained_by_layer"]) == line["dim"]
            # of one size throughout, supports have c = o 2n / (1 + o) weights in common
            common, union = 0.0, 0.0
            for n, o in zip(line["trained_by_layer"], line["overlap_by_layer"], strict=True):
                common, union = common + 2 * n * o / (1 + o), union + 2 * n / (1 + o)
            assert common / union == pytest.approx(line["overlap"], abs=2e-4)


def write_history(run: Path, counts: list[list[int]], overlaps: list[list[float]]) -> None:
    totals = {"a.weight": 10, "b.weight": 100}
    result = json.loads((run / "result.json").read_text())
    result["layers"] = {name: {"total": total} for name, total in totals.items()}
    (run / "result.json").write_text(json.dumps(result))
    lines = []
    for i, (count, overlap) in enumerate(zip(counts, overlaps, strict=True), 1):
        line = {"phase": 0, "step": i, "epoch": i}
        lines.append(json.dumps(line | {"trained_by_layer": count, "overlap_by_layer": overlap}))
    (run / "metrics.jsonl").write_text("\n".join(lines))


def test_the_history_is_the_mean_density_by_layer_and_epoch(runs: Path) -> None:
    one, two = folders(runs, "set-s0.9-*")
    write_history(one, [[10, 50], [5, 20]], [[1, 1], [1, 1]])
    write_history(two, [[10, 30], [1, 20]], [[1, 1], [1, 1]])
    drawn = {picture.kind: picture for picture in pictures("history", settings(runs))[0]}
    own = [
        (row["layer"], row["epoch"], row["share"])
        for row in drawn["history-density"].points
        if (row["method"], row["sparsity"]) == ("set", 0.9)
    ]
    expected = [("a.weight", 1, 1.0), ("a.weight", 2, 0.3), ("b.weight", 1, 0.4)]
    assert [row[:2] for row in own[:3]] == [row[:2] for row in expected]
    assert [row[2] for row in own] == pytest.approx([1.0, 0.3, 0.4, 0.2])
    # the overlap of these runs stays at 1, that of the others does not
    overlaps = {(row["method"], row["sparsity"]) for row in drawn["history-overlap"].points}
    assert overlaps == {("set", 0.5)}
    assert "snip 90 %" in drawn["history-overlap"].caption


def test_a_run_whose_weights_stay_the_same_is_named(runs: Path) -> None:
    still, moving = folders(runs, "set-s0.9-seed0-*") + folders(runs, "set-s0.5-seed0-*")
    write_history(still, [[10, 50], [10, 50]], [[1, 1], [1, 1]])
    write_history(moving, [[10, 50], [10, 50]], [[1, 1], [1, 0.5]])
    drawn, (note,) = pictures("history", settings(still, moving))
    assert [picture.kind for picture in drawn] == ["history-overlap"]
    assert note == (
        f"history: 1 of 2 runs not drawn (the same weights are trained throughout): {still.name}"
    )


def test_a_run_that_was_evaluated_once_is_not_said_to_be_static(runs: Path) -> None:
    (run,) = folders(runs, "set-s0.9-seed0-*")
    write_history(run, [[10, 50]], [[1, 1]])
    _, (note,) = pictures("history", settings(run))
    assert "(evaluated once, so there is no change to draw)" in note


def test_runs_of_a_version_without_a_history_are_named(runs: Path) -> None:
    old, new = folders(runs, "set-s0.9-seed0-*") + folders(runs, "set-s0.5-seed0-*")
    (old / "metrics.jsonl").write_text('{"phase": 0, "step": 1, "epoch": 1, "overlap": 1}')
    drawn, (note,) = pictures("history", settings(old, new))
    assert {row["sparsity"] for row in drawn[0].points} == {0.5}
    assert note == (
        "history: 1 of 2 runs not drawn (metrics.jsonl has no trained_by_layer; an older "
        f"version of dimred wrote it): {old.name}"
    )


def test_of_many_panels_each_method_has_some_and_the_numbers_have_all() -> None:
    found = {}
    for method, count in (("rigl", 40), ("set", 2)):
        for i in range(count):
            found[Point(method, "", i / 40, ())] = History(["a"], [1, 2], np.ones((1, 2)), 1)
    kept = [(point.method, 40 * (point.sparsity or 0)) for point in thinned(found)]
    # of 24 panels each method has 12, or as many as it needs
    assert len(kept) == 12 + 2 and kept[-2:] == [("set", 0), ("set", 1)]
    assert kept[:2] == [("rigl", 0), ("rigl", 4)] and kept[11] == ("rigl", 39)
    few = dict(list(found.items())[-24:])
    assert thinned(few) == few


# -- masks --------------------
def test_input_pixels_have_the_fraction_of_their_weights_that_are_trained() -> None:
    mask = np.zeros((2, 9), bool)
    mask[0, 4] = mask[1, 4] = mask[0, 8] = True
    found = {"fc1.weight": mask, "fc2.weight": np.ones((2, 2), bool)}
    (pixels,) = inputs_of(found, (1, 3, 3))
    assert pixels.shares.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0.5]]
    (colours,) = inputs_of({"fc1.weight": np.arange(12)[None] < 4}, (3, 1, 4))
    assert colours.shares == pytest.approx(np.full((1, 4), 1 / 3))


def test_only_a_layer_that_reads_images_is_drawn_as_one() -> None:
    for shape in ((9,), (1, 4, 4), ()):
        assert not inputs_of({"fc.weight": np.ones((2, 9), bool)}, shape)
        assert not inputs_of({"conv.weight": np.ones((2, 9, 3, 3), bool)}, shape)


def test_filters_of_the_first_layer_are_tiles_with_gaps() -> None:
    mask = np.zeros((3, 2, 2, 2), bool)
    mask[0, 0] = mask[1] = True  # half of the first filter, all of the second
    (filters,) = inputs_of({"conv1.weight": mask}, (2, 8, 8))
    gap = np.nan
    expected = [
        [0.5, 0.5, gap, 1, 1],
        [0.5, 0.5, gap, 1, 1],
        [gap] * 5,
        [0, 0, gap, gap, gap],
        [0, 0, gap, gap, gap],
    ]
    np.testing.assert_array_equal(filters.shares, expected)
    assert tiled(np.ones((65, 3, 3))).shape == (8 * 4 - 1, 9 * 4 - 1)


def test_a_large_mask_is_a_map_of_means_over_blocks() -> None:
    mask = np.zeros((64, 96), bool)
    mask[:2, :2] = True
    found = map_of("fc.weight", mask)
    assert found.shares.shape == (32, 32) and found.mean == 4 / (64 * 96)
    assert found.shares[0, 0] == pytest.approx(4 / 6) and found.shares.sum() == found.shares[0, 0]
    small = np.array([[True, False]])
    assert map_of("fc.weight", small).shares.tolist() == [[1, 0]]


# -- weights --------------------
@pytest.mark.parametrize("look", [PLAIN, PAPER])
def test_the_text_of_a_histogram_is_within_the_page_and_off_its_bars(look: Look) -> None:
    values = np.random.default_rng(0).laplace(size=20_000)
    values[0] = 30  # nearly all are in the bar in the middle, and the one beside it
    found = {f"layer{i}.weight": histogram(values) for i in range(12)}
    with styled(look.rc):
        sheet = Sheet(3.35 if look is PAPER else WIDE)
        figure = draw_histograms(sheet, found)
        FigureCanvasAgg(figure).draw()
        for axes in figure.axes:
            most = axes.transData.transform((0, found["layer0.weight"].counts.max()))[1]
            assert axes.texts[0].get_window_extent().y0 >= most
            assert axes.yaxis.label.get_window_extent().x0 >= 0
            assert not [tick for tick in axes.get_yticklabels() if "e+" in tick.get_text()]


# -- names of layers --------------------
def test_long_names_of_layers_can_be_told_apart_and_fit() -> None:
    names = [f"vit.encoder.layer.{i}.attention.attention.query.weight" for i in range(12)]
    names += ["stage2.0.shortcut.conv.weight", "stage3.0.shortcut.conv.weight"]
    found = labels(names, 1.5, 9.5, "bold")
    assert found[:2] == ["v.e.l.0.a.a.query", "v.e.l.1.a.a.query"]
    assert found[-2:] == ["s2.0.s.conv", "s3.0.s.conv"]
    assert max(width_of(text, 9.5, "bold") for text in found) <= 1.5
    assert labels(["fc1.weight"], 1.5) == ["fc1"]


def test_names_that_no_abbreviation_tells_apart_have_their_places() -> None:
    alpha, abc = labels(["alpha." + "x" * 22, "abc." + "x" * 22], 1.5)
    assert alpha.startswith("1: ") and abc.startswith("2: ")


def test_layers_whose_long_names_begin_alike_are_all_drawn(runs: Path) -> None:
    (one, *_) = folders(runs, "snip-*")
    layer = {"total": 4, "trained": 1, "nonzero": 1}
    names = [f"{'encoder.' * 6}{i}.weight" for i in range(3)]
    change(one, layers=dict.fromkeys(names, layer))
    (run,) = find_runs(one)
    assert list(layer_shares(run)) == names


# -- files --------------------
def test_masks_and_weights_of_named_runs_are_drawn(
    dimred: Callable[..., Outcome], runs: Path, tmp_path: Path
) -> None:
    one, two = folders(runs, "set-s0.9-*")
    save_file({"psi/fc1.weight": np.array([-1, -1, 1, 0.5], "f4")}, one / "model.safetensors")
    (two / "masks.npz").unlink()
    words = ["plot", "masks", "weights", str(one), str(two), "--out", str(tmp_path / "out")]
    outcome = dimred(*words)
    assert outcome.code == 0, outcome.err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    kinds = [("masks", one), ("weights", one), ("weights", two)]
    wanted = {f"{kind}-{run.name}.{form}" for kind, run in kinds for form in ("svg", "csv")}
    assert names == wanted
    assert "masks: 1 of 2 runs not drawn (no masks.npz in the run" in outcome.err
    rows = (tmp_path / "out" / f"weights-{one.name}.csv").read_text().splitlines()
    counts = [int(row.rpartition(",")[2]) for row in rows[1:]]
    assert sum(counts) == 4 and (counts[0], counts[-1]) == (2, 1)


@pytest.mark.parametrize(
    "words",
    [
        ["masks", "--paper", "RUN"],
        ["--paper", "masks", "RUN"],
        ["RUN", "--paper", "masks"],
        ["--format", "pdf", "RUN", "--paper", "masks"],
        ["--runs", "RUN", "masks", "--paper"],
        ["masks", "--paper", "--runs", "RUN"],
    ],
)
def test_pictures_runs_and_options_are_named_in_any_order(words: list[str], runs: Path) -> None:
    run = str(folders(runs)[0])
    given = parse([{"RUN": run}.get(word, word) for word in words])
    assert (given.picture, given.runs, given.paper) == (["masks"], [run], True)


def test_a_word_that_is_neither_a_picture_nor_a_folder_is_an_error() -> None:
    with pytest.raises(UserError, match=r"'mask' is no picture, and no folder.*'masks'"):
        parse(["mask", "--paper"])


def test_pictures_of_single_runs_are_not_drawn_of_a_whole_folder(
    dimred: Callable[..., Outcome], trained: Path, tmp_path: Path
) -> None:
    for name in ("one", "two", "three"):
        shutil.copytree(trained, tmp_path / name)
    outcome = dimred("plot", "masks", "--runs", str(tmp_path), "--out", str(tmp_path / "out"))
    assert outcome.code == 1 and "there are 30. Name up to 24 of them" in outcome.err
    assert not (tmp_path / "out").exists()
