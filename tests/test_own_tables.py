"""A user's own tables, and mistakes in commands and files."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Outcome
from fixtures import TINY
from tables import SNIP, cell, filled, put, shipped

from dimred.cli.main import main
from dimred.cli.table import outputs_of
from dimred.errors import UserError
from dimred.report.tables.formats import FORMATS
from dimred.report.tables.published import read_table


def test_tables_are_shown_without_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from dimred.cli.main import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    for arguments in (
        ["table"],
        ["table", "freezenet_mnist", "--runs", str(tmp_path)],
        ["reproduce", "freezenet_mnist", "--dry-run", f"outputs={tmp_path}"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert re.search(r"\n\d+ runs to do", done.stdout)


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
        ("table missing.yaml", "There is no file missing.yaml"),
        ("table cops --only zzz", "A name is ROW / COLUMN, such as "),
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
def test_a_folder_without_a_run_is_distinguished_from_an_unfinished_run(
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
def test_a_table_of_the_user_is_checked_strictly(
    change: tuple[str, str], part: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(TINY.replace(*change))
    with pytest.raises(UserError, match=re.escape(part)):
        read_table(str(tmp_path / "mine.yaml"))


def test_a_method_of_the_user_can_have_a_table(
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


def test_a_table_of_the_user_never_overwrites_another(
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


def test_null_means_that_a_key_is_absent(tiny: str) -> None:
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
        "extends: pai_cifar10_vgg16\nsettings: dataset=digits model=conv2\nseeds: [5]\n"
    )
    mine = read_table(str(tmp_path / "mine.yaml"))
    assert mine.title == shipped("pai_cifar10_vgg16").title and mine.parts[0].seeds == (5,)
    assert mine.parts[0].cells[0].overrides["model"] == "conv2"
