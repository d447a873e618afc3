"""Pictures of runs: their numbers, labels and colours, and runs that cannot be drawn."""

from __future__ import annotations

import gc
import json
import math
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import Outcome
from figures import change, change_config, folders, settings, written
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from matplotlib.figure import Figure

from dimred.garbage import uncollected
from dimred.report.pictures.catalogue import pictures
from dimred.report.pictures.curves import curve
from dimred.report.pictures.layers import means
from dimred.report.pictures.marks import (
    FLOPS,
    INFERENCE,
    SPARSITY,
    STEP,
    TIME,
    Mark,
    grouped,
    marks_of,
    pareto,
)
from dimred.report.pictures.metrics import metrics, series
from dimred.report.pictures.names import differing, file_name
from dimred.report.pictures.overview import page
from dimred.report.pictures.picture import NARROW, WIDE
from dimred.report.pictures.points import (
    Point,
    Stat,
    kept,
    settings_of,
)
from dimred.report.pictures.sheet import log_ticks, shortened, spread, width_of
from dimred.report.pictures.style import (
    COLOURS,
    DARK,
    INK,
    MARKERS,
    MUTED,
    SHADES,
    styled,
    styles_of,
)
from dimred.report.runs import Run, find_runs


# -- files --------------------
def test_a_figure_is_gone_when_it_is_written(trained: Path) -> None:
    """Though nothing collects garbage meanwhile, and figures are part of cycles."""
    picture = pictures("sparsity", settings(trained))[0][0]
    gc.collect()
    with uncollected():
        picture.inline(WIDE, "x")
        assert Figure not in map(type, gc.get_objects())


def test_everything_is_drawn_and_again_to_the_same_bytes(
    dimred: Callable[..., Outcome], trained: Path, tmp_path: Path
) -> None:
    found = []
    for out in (tmp_path / "one", tmp_path / "two"):
        outcome = dimred("plot", "--runs", str(trained), "--out", str(out))
        assert outcome.code == 0 and "Traceback" not in outcome.err, outcome.err
        assert sorted(outcome.out.split()) == sorted(str(path) for path in out.iterdir())
        found.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert found[0] == found[1]
    assert {
        "overview.html",
        *(
            f"{kind}-digits-lenet300-epochs_3.svg"
            for kind in ("sparsity", "flops", "layers", "support", "curves-accuracy", "curves-loss")
        ),
    } <= set(found[0])


def test_a_picture_for_a_dark_page_has_none_of_the_colours_of_a_light_one(trained: Path) -> None:
    picture = pictures("layers", settings(trained))[0][0]
    light, dark = (picture.file(form).decode() for form in ("svg", "dark.svg"))
    used = [colour for colour in DARK if colour in light]
    assert MUTED in used
    for colour in used:
        assert colour not in dark and DARK[colour] in dark
    assert "#0d1117" in dark


@pytest.mark.parametrize(
    ("form", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("dark.svg", b"<?xml")]
)
def test_other_formats_are_the_same_bytes_each_time_too(
    form: str, start: bytes, trained: Path
) -> None:
    one, two = (pictures("layers", settings(trained))[0][0].file(form) for _ in range(2))
    assert one == two and one.startswith(start) and b"CreationDate" not in one


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_pictures_name_their_axes_with_units_the_methods_and_the_number_of_seeds(
    trained: Path, width: float
) -> None:
    expected = {
        "sparsity": ["test accuracy (%)", "weights kept, 1 − sparsity (%)", "snip", "set", "dense"],
        "flops": ["training (FLOPs)", "Pareto front"],
        "time": ["training (seconds)", "Pareto front"],
        "step": ["training step (ms)"],
        "inference": ["inference with 128 images (ms)"],
        "layers": ["sparsity 90 %", "fc1", "snip"],
        "support": ["epochs trained", "share (%)", "set"],
        "curves": ["accuracy (%)", "loss (nats)", "validation"],
    }
    for what, parts in expected.items():
        text = " ".join(written(what, trained, width))
        assert "digits, lenet300" in text and "n = 2 seeds" in text
        assert not [part for part in parts if part not in text], (what, text)


# -- numbers --------------------
def test_points_can_lie_at_measured_times(runs: Path) -> None:
    """Those of runs with sparse products at the times of these, as curves of their own."""
    for run in folders(runs, "snip-s0.9-*"):
        times = {"128": {"sparse": 0.002, "dense": 0.004}}
        change(run, arithmetic="sparse", inference_seconds=times, step_seconds=0.01, seconds=5)
        change_config(run, "arithmetic: dense", "arithmetic: sparse")
    (setting,) = settings(runs)
    assert "snip (arithmetic=sparse)" in setting.methods
    assert "snip (arithmetic=dense)" in setting.methods and "set" in setting.methods
    for cost, expected in ((INFERENCE, 2.0), (STEP, 10.0), (TIME, 5.0)):
        marks = marks_of(setting, cost)
        (sparse,) = [mark for mark in marks if mark.method == "snip (arithmetic=sparse)"]
        assert sparse.x == pytest.approx(expected) and len(marks) == 5


def test_points_are_the_mean_and_the_sample_deviation_over_seeds(trained: Path) -> None:
    marks = marks_of(settings(trained)[0], SPARSITY)
    assert [(m.method, m.sparsity) for m in marks] == [
        ("set", 0.5),
        ("set", 0.9),
        ("snip", 0.5),
        ("snip", 0.9),
        ("dense", None),
    ]
    assert [m.x for m in marks] == pytest.approx([0.5, 0.1, 0.5, 0.1, 1.0])
    for mark, pattern in zip(
        marks, ("set-s0.5", "set-s0.9", "snip-s0.5", "snip-s0.9", "dense"), strict=True
    ):
        results = [
            json.loads((run / "result.json").read_text())
            for run in folders(trained, f"{pattern}-*")
        ]
        values = [result["test_accuracy"] for result in results]
        assert mark.y == Stat(statistics.fmean(values), statistics.stdev(values), 2)


def test_a_run_without_the_number_counts_in_no_mean_and_a_single_seed_has_no_deviation(
    runs: Path,
) -> None:
    one, other = folders(runs, "snip-s0.9-*")
    change(one, training_flops=None)
    [mark] = [
        each
        for each in marks_of(settings(runs)[0], FLOPS)
        if (each.method, each.sparsity) == ("snip", 0.9)
    ]
    result = json.loads((other / "result.json").read_text())
    assert mark == Mark(
        "snip", 0.9, result["training_flops"], Stat(result["test_accuracy"], 0.0, 1)
    )


def test_runs_with_more_weights_than_requested_are_drawn_at_the_measured_fraction(
    trained: Path,
) -> None:
    (run,) = find_runs(folders(trained, "snip-s0.9-seed0-*")[0])
    for dim, density, share in ((20_000, 0.5, 0.3984), (50_200, 0.2, 0.2), (4_000, 0.05, 0.1)):
        changed = Run(run.folder, 0, {}, "done", run.result | {"dim": dim, "density": density})
        assert kept(changed) == pytest.approx(share, abs=1e-4)


def test_densities_of_layers_are_those_of_the_result(trained: Path) -> None:
    (setting,) = settings(trained)
    point = next(p for p in setting.points if (p.method, p.sparsity) == ("snip", 0.9))
    results = [run.result["layers"]["fc2.weight"] for run in point.runs]
    expected = statistics.fmean(
        min(layer["trained"], layer["nonzero"]) / layer["total"] for layer in results
    )
    share, missing = means(point, ["fc2.weight", "no_such.weight"])
    assert share == pytest.approx(expected) and missing != missing


def test_epochs_are_counted_over_all_rounds(tmp_path: Path) -> None:
    lines = [(0, 10, 1.0), (0, 20, 2.0), (1, 10, 1.0), (1, 20, 2.0), (2, 25, 2.5), (3, 16, 1.6)]
    (tmp_path / "metrics.jsonl").write_text(
        "\n".join(
            [
                *(
                    json.dumps({"phase": phase, "step": step, "epoch": epoch})
                    for phase, step, epoch in lines
                ),
                '{"phase": 3, "step": 1',
                "[]",
                '{"phase": "x", "step": 2, "epoch": 1}',
            ]
        )
    )
    assert metrics(tmp_path).epochs.tolist() == [1.0, 2.0, 3.0, 4.0, 4.5, 5.5]


def test_a_number_is_read_at_the_steps_that_have_it(tmp_path: Path) -> None:
    values = ["0.5", "true", "1e400", "null", '"3"', "2"]
    lines = [
        f'{{"phase": 0, "step": {k}, "epoch": {k}, "loss": {value}}}'
        for k, value in enumerate(values, 1)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, "", "[1]", lines[0][:20]]))
    found = series(tmp_path, "loss")
    assert found.steps == [(0, 1), (0, 6)]
    assert (found.epochs.tolist(), found.values.tolist()) == ([1, 6], [0.5, 2])
    assert found.at([(0, 6)]).values.tolist() == [2]


def test_a_band_of_losses_never_reaches_zero(tmp_path: Path) -> None:
    losses = [(0.01, 4.0), (0.01, 4.0), (1.0, 0.0)]  # mean - std < 0 at first, then a loss of 0
    for i, values in enumerate(losses):
        (tmp_path / f"{i}").mkdir()
        (tmp_path / f"{i}" / "metrics.jsonl").write_text(
            "\n".join(
                json.dumps({"phase": 0, "step": k, "epoch": k, "val_loss": value})
                for k, value in enumerate(values)
            )
        )
    point = Point(
        "m", "Own methods", None, tuple(Run(tmp_path / f"{i}", i, {}, "done", {}) for i in range(3))
    )
    found = curve(point, "val_loss", log=True)
    assert found and found.n == 3 and (found.low > 0).all() and (found.low < found.mean).all()
    spread = math.exp(statistics.stdev(math.log(first) for first, _ in losses))
    middle = statistics.geometric_mean(first for first, _ in losses)
    assert [found.mean[0], found.low[0], found.high[0]] == pytest.approx(
        [middle, middle / spread, middle * spread]
    )


def test_the_pareto_front_has_the_points_that_no_other_dominates() -> None:
    def mark(x: float, y: float) -> Mark:
        return Mark("m", None, x, Stat(y, 0.0, 1))

    marks = [
        mark(3, 0.9),
        mark(1, 0.5),
        mark(2, 0.4),
        mark(2, 0.7),
        mark(4, 0.9),
        mark(5, 0.95),
        mark(1, 0.3),
    ]
    assert [(m.x, m.y.mean) for m in pareto(marks)] == [(1, 0.5), (2, 0.7), (3, 0.9), (5, 0.95)]


# -- what is never mixed --------------------
def test_other_data_models_and_recipes_have_pictures_of_their_own(runs: Path) -> None:
    for folder, (key, value) in zip(
        folders(runs, "snip-*"), [("dataset", "mnist"), ("model", "lenet5")], strict=False
    ):
        change(folder, **{key: value})
    for folder in folders(runs, "set-s0.5-*"):
        change_config(folder, "epochs: 3", "epochs: 4")
    found = {
        setting.title: sorted({p.method for p in setting.points}) for setting in settings(runs)
    }
    assert found == {
        "mnist, lenet300": ["snip"],
        "digits, lenet5": ["snip"],
        "digits, lenet300 (recipe.epochs=3)": ["dense", "set", "snip"],
        "digits, lenet300 (recipe.epochs=4)": ["set"],
    }
    drawn, _ = pictures("sparsity", settings(runs))
    assert len({picture.name for picture in drawn}) == 4
    assert "digits, lenet300 (recipe.epochs=4)" in written("sparsity", runs)[1]


def test_files_are_named_by_what_a_setting_changes_whatever_other_runs_there_are(
    runs: Path,
) -> None:
    def names() -> set[str]:
        return {picture.name for picture in pictures("sparsity", settings(runs))[0]}

    (alone,) = names()
    assert alone.startswith("sparsity-digits-lenet300-") and "epochs_3" in alone
    for folder in folders(runs, "set-s0.5-*"):
        change_config(folder, "epochs: 3", "epochs: 1")
        change_config(folder, "lr: 0.1", "lr: 0.05")
    (other,) = names() - {alone}
    assert alone in names()
    assert other == alone.replace("epochs_3", "epochs_1-lr_0.05")


@pytest.mark.parametrize(
    "key, name",
    [
        (("digits", "lenet300"), "digits-lenet300"),
        (("digits", "lenet300", "recipe.lr=0.1", "recipe.warmup=0"), "digits-lenet300"),
        (("digits", "", "recipe.lr=0.001"), "digits-lr_0.001"),
        (
            ("digits", "lenet300", 'include=["fc1.weight"]', 'dataset.path="/a b"'),
            "digits-lenet300-include_fc1.weight-dataset.path_a_b",
        ),
    ],
)
def test_a_file_name_has_what_is_not_as_in_the_files_of_dimred(
    key: tuple[str, ...], name: str
) -> None:
    assert file_name(key) == name


def test_names_of_ones_own_data_and_long_names_end_in_a_digest() -> None:
    one, other = (file_name(("mine", "lenet300", f"dataset.path={i}")) for i in range(2))
    assert re.fullmatch("mine-lenet300-[0-9a-f]{6}", one) and one != other
    long = file_name(("digits", "lenet300", f'include=["{"x" * 99}"]'))
    assert re.fullmatch("digits-lenet300-[0-9a-f]{6}", long)


def test_a_method_with_other_values_has_a_curve_of_its_own(runs: Path) -> None:
    for folder in folders(runs, "snip-*-seed1-*"):
        change_config(folder, "examples: 128", "examples: 64")
    assert "snip (examples=64)" in written("sparsity", runs)[0]
    (setting,) = settings(runs)
    assert {p.method: len(p.runs) for p in setting.points if "snip" in p.method} == {
        "snip (examples=128)": 1,
        "snip (examples=64)": 1,
    }


@pytest.mark.parametrize(
    "own, others, name",
    [
        (
            ['method.maximise="snip"', 'method.subject_to=["grasp"]'],
            [['method.maximise="crop"']],
            " (snip, grasp)",
        ),
        (
            ["method.lr=0.1", 'method.allocation="dimred.select.allocations.ERK"'],
            [["method.lr=0.2"]],
            " (lr=0.1, ERK)",
        ),
        (['method.ablation="none"'], [['method.ablation="invert"']], " (ablation=none)"),
        ([], [['method.ablation="none"']], " (older version)"),
        (["method.lr=0.1"], [], ""),
    ],
)
def test_labels_name_only_the_settings_that_distinguish_methods(
    own: list[str], others: list[list[str]], name: str
) -> None:
    assert differing(own, [own, *others]) == name


def test_a_text_that_is_cut_keeps_its_end_and_fits() -> None:
    for weight in ("normal", "bold"):
        short = shortened("channel_at_init (a=none) 98 %", 1.0, 8.5, weight)
        assert (
            short.startswith("chan")
            and short.endswith(" 98 %")
            and width_of(short, 8.5, weight) <= 1.0
        )
    assert shortened("snip 98 %", 1.0) == "snip 98 %" and width_of("snip", 9.5, "bold") > width_of(
        "snip", 9.5
    )


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_front_of_long_names_is_not_cut_off(trained: Path, runs: Path, width: float) -> None:
    for run in folders(runs):
        change(run, method=json.loads((run / "result.json").read_text())["method"] + "_" * 33)
    for what in ("storage", "flops"):
        [picture] = pictures(what, settings(runs))[0]
        with styled({}):
            figure = picture.figure(width)
            ends = [text.get_window_extent().x1 / figure.dpi for text in figure.texts]
        assert max(ends) < width and len(ends) > 6


def test_dense_has_no_family(trained: Path) -> None:
    assert {point.method: point.family for point in settings(trained)[0].points} == {
        "snip": "Pruning at initialisation",
        "set": "Dynamic sparse training",
        "dense": "dense",
    }


def test_a_run_in_two_folders_is_one_seed(trained: Path, runs: Path) -> None:
    found, notes = settings_of([run for place in (trained, runs) for run in find_runs(place)])
    assert {len(point.runs) for point in found[0].points} == {2}
    assert len(notes) == 10 and all("the same run as" in note for note in notes)


def test_many_methods_have_panels_by_family_and_a_style_each() -> None:
    methods = {f"m{i}": f"family {i // 12}" for i in range(60)}
    groups = grouped(methods)
    assert [m for _, members in groups for m in members] == list(methods)
    assert all(
        len(members) <= len(COLOURS) and len({methods[m] for m in members}) == 1
        for _, members in groups
    )
    assert grouped({"a": "x", "b": "y"}) == [("", ["a", "b"])]
    styles = styles_of([*methods, "dense"])
    assert len(set(styles.values())) == 61 and len(MARKERS) * len(COLOURS) == 63
    for _, members in groups:
        assert len({styles[m].colour for m in members}) == len(members)


@examples(deadline=None)
@given(
    st.lists(
        st.lists(
            st.sampled_from([f"m{i}" for i in range(20)]), min_size=2, max_size=4, unique=True
        ),
        max_size=3,
    )
)
def test_methods_that_share_a_panel_differ_in_colour(panels: list[list[str]]) -> None:
    styles = styles_of([*(f"m{i}" for i in range(20)), "dense"], panels)
    assert all(len({styles[m].colour for m in members}) == len(members) for members in panels)
    assert len(set(styles.values())) == 21


# -- looks --------------------
def test_colours_stand_out_from_light_and_dark_pages() -> None:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05

    for colour in (*COLOURS, INK, MUTED):
        least = 4.5 if colour in (INK, MUTED) else 2.99
        assert (
            light("#ffffff") / light(colour) >= least
            and light(DARK[colour]) / light("#0d1117") >= least
        ), colour
    assert set(DARK) >= {*COLOURS, *SHADES}


def test_a_page_has_its_colours_from_its_style_sheet(trained: Path) -> None:
    svg = pictures("sparsity", settings(trained))[0][0].inline(NARROW, "one")
    assert (
        f"var(--c{COLOURS[0][1:]})" in svg
        and f"var(--c{INK[1:]})" in svg
        and "#" + INK[1:] not in svg
    )
    assert all(
        name.startswith("one-")
        for name in re.findall(r' id="([^"]*)"|href="#([^"]*)"|url\(#([^)]*)\)', svg)
        for name in name
        if name
    )


@examples(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_names_beside_lines_keep_their_distance_and_their_order(wanted: list[float]) -> None:
    wanted = sorted(wanted)
    places = spread(wanted, 0.08)
    assert all(b - a > 0.08 - 1e-9 for a, b in pairwise(places))
    assert places[0] >= -1e-9 and places[-1] <= 1 + 1e-9
    if all(b - a >= 0.08 for a, b in pairwise(wanted)):
        assert places == pytest.approx(wanted)


@examples(deadline=None)
@given(st.floats(1e-4, 1e15), st.floats(1.01, 1e9), st.floats(0.5, 8))
def test_ticks_lie_within_their_axis(low: float, ratio: float, room: float) -> None:
    places = log_ticks(low, low * ratio, room, lambda x: f"{x:.0f}")
    assert len(places) > 1 and all(low * 0.99 <= place <= low * ratio * 1.01 for place in places)


# -- runs that cannot be drawn --------------------
def test_runs_of_older_versions_are_named_and_nothing_is_invented(
    dimred: Callable[..., Outcome], runs: Path
) -> None:
    for folder in folders(runs, "set-*"):
        change(folder, training_flops=None)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        (folder / "metrics.jsonl").write_text(
            "".join(
                json.dumps({k: v for k, v in line.items() if k not in ("overlap", "explored")})
                + "\n"
                for line in lines
            )
        )
    (text,) = written("flops", runs)
    assert "snip 90 %" in text and "set" not in text.replace("seed", "").split()
    outcome = dimred("plot", "flops", "support", "--runs", str(runs), "--out", str(runs / "out"))
    assert outcome.code == 1 and "nothing to draw for support" in outcome.err, outcome.err
    assert (
        "flops: 4 of 10 runs not drawn (result.json has no training_flops; an older version"
        in outcome.err
    )
    assert (
        "set-s0.5-seed0" in outcome.err
        and "and 1 more" in outcome.err
        and "Traceback" not in outcome.err
    )
    assert sorted(path.name for path in (runs / "out").iterdir()) == [
        "flops-digits-lenet300-epochs_3.csv",
        "flops-digits-lenet300-epochs_3.svg",
    ]


def test_unfinished_failed_and_damaged_runs_are_one_line_each(
    dimred: Callable[..., Outcome], runs: Path
) -> None:
    unfinished, failed, damaged, other = folders(runs, "snip-*")
    (unfinished / "result.json").unlink()
    change(failed, status="failed", reason="out of memory")
    (damaged / "result.json").write_text('{"status": "do')
    (other / "config.yaml").write_text("a: [")
    outcome = dimred("plot", "sparsity", "--runs", str(runs), "--out", str(runs / "out"))
    assert outcome.code == 0 and "Traceback" not in outcome.err
    for folder, state in (
        (unfinished, "unfinished"),
        (failed, "failed (out of memory)"),
        (damaged, "damaged"),
        (other, "damaged"),
    ):
        assert (
            len([line for line in outcome.err.splitlines() if f"{folder}: {state}" in line]) == 1
        ), outcome.err
    notes = (
        page(settings(runs), [], outcome.err.splitlines()).decode().partition("Not shown</h2>")[2]
    )
    assert "out of memory" in notes


def test_values_that_are_not_numbers_count_as_missing(runs: Path) -> None:
    values = [None, "0.9", [1], True, float("nan"), float("inf"), {}]
    for folder, value in zip(folders(runs, "s*"), values, strict=False):
        change(folder, test_accuracy=value, layers=value, storage_bytes=value, training_flops=value)
        (folder / "metrics.jsonl").write_text(
            json.dumps({"phase": value, "step": value, "epoch": value}) + "\n{"
        )
    for what in ("sparsity", "flops", "layers", "support", "curves"):
        drawn, notes = pictures(what, settings(runs))
        assert notes and all(picture.file("svg") for picture in drawn)
    notes = pictures("storage", settings(runs))[1]
    assert any(
        "6 of 10 runs not drawn (no finite number in result.json for test_accuracy" in n
        for n in notes
    )
    assert page(settings(runs), [], [])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("sparsty", ["'sparsty' is no picture", "'sparsity'"]),
        ("--format gif", ["unknown format 'gif'", "svg"]),
        ("--run x", ["unknown option --run", "--runs"]),
        ("--out", ["--out needs a value"]),
        ("--runs", ["--runs needs a value"]),
        ("--runs nowhere", ["no folder nowhere"]),
        ("masks outputs/nope", ["no folder outputs/nope"]),
        ("masks zip://runs.zip", ["masks read folders alone", "zip://runs.zip is a URL"]),
        ("--runs .", ["no finished run in ."]),
    ],
)
def test_bad_requests_are_answered_without_torch(
    arguments: str, parts: list[str], tmp_path: Path
) -> None:
    program = (
        "import sys; from dimred.cli.main import main; code = main(['plot', *sys.argv[1:]]); "
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 1
        and done.stderr.startswith("dimred: ")
        and "Traceback" not in done.stderr
    ), done.stderr
    assert not [part for part in parts if part not in done.stderr], done.stderr


def test_a_missing_library_is_named_with_the_extra_to_install() -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None; "
        "from dimred.cli.main import main; sys.exit(main(['plot']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (
        done.returncode == 1
        and "matplotlib" in done.stderr
        and "pip install 'dimred[plot]'" in done.stderr
    )


def test_options_may_come_before_and_after_the_folders(tmp_path: Path) -> None:
    from dimred.cli.plot import parse

    def parsed(*arguments: str) -> tuple[list[str], list[str], Path, str | None]:
        given = parse([*arguments])
        return given.picture, given.runs, given.out, given.format

    a, b, out = "a", "b", Path("outputs/pictures")
    assert parsed("flops", "--runs", "a", "b", "--out", "o") == (
        ["flops"],
        [a, b],
        Path("o"),
        None,
    )
    assert parsed("--runs=a", "--runs", "b", "--format=png", "flops", "flops") == (
        ["flops"],
        [a, b],
        out,
        "png",
    )
    assert parsed("--runs", "a", "flops") == (["flops"], [a], out, None)
    assert parsed() == ([], ["outputs/runs"], out, None)
