"""Help: every command, every method, and its fields with defaults and ranges, in lines that fit."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome

from dimred.cli.commands import COMMANDS, find
from dimred.runs.config.fields import fields, group_files


def fits(text: str) -> bool:
    return max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_its_own_help(command: str, dimred: Callable[..., Outcome]) -> None:
    code, out, _ = dimred(command, "--help")
    assert code == 0 and out.startswith(f"usage: dimred {command} ") and fits(out)
    assert all(option in out for option in find(command).parser().options())
    assert dimred("help", command).out == out


def test_the_overview_names_every_command(dimred: Callable[..., Outcome]) -> None:
    out = dimred("--help").out
    assert fits(out) and all(f"\n{name} " in out for name in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_an_unknown_option_is_an_error_with_the_nearest_name(
    command: str, dimred: Callable[..., Outcome]
) -> None:
    code, _, err = dimred(command, "--hepl")
    assert code == 1 and "unknown option --hepl. Did you mean '--help'" in err


def test_options_and_arguments_may_come_in_any_order() -> None:
    parser = find("table").parser()
    given = parser.parse(["--seeds", "7,", "cops", "--only=x", "recipe.lr=1", "--format", "csv"])
    assert (given.name, given.overrides, given.seeds) == ("cops", ["recipe.lr=1"], [7])
    assert (given.only, given.format, given.scale) == ("x", "csv", 1)


# -- methods --------------------
def test_a_method_is_described_with_equation_fields_and_ranges(
    dimred: Callable[..., Outcome],
) -> None:
    out = dimred("methods", "rigl").out
    assert fits(out)
    for part in (
        "drop the weights of smallest magnitude",
        "t = k, 2",
        "arXiv:1911.11134",
        "method.drop_fraction 0.3 alpha",
        "whose gradients are summed; 1 or more",
    ):
        assert part in " ".join(out.split())
    allowed = {
        field.name: field.allowed
        for field in fields("method", group_files("method")["rigl"]).fields
    }
    assert allowed["update_every"] == "a whole number of steps, or a fraction of training below 1"
    assert allowed["drop_fraction"] == allowed["update_until"] == "a fraction in [0, 1]"


def test_an_unknown_method_is_an_error_with_the_nearest_names(
    dimred: Callable[..., Outcome],
) -> None:
    code, _, err = dimred("methods", "rigel")
    assert code == 1 and "unknown method 'rigel'. Did you mean 'rigl'" in err
    assert dimred("methods", "--jsn").code == 1


def test_the_list_of_methods_fits(dimred: Callable[..., Outcome]) -> None:
    assert fits(dimred("methods").out)


def test_help_of_train_describes_what_is_chosen(dimred: Callable[..., Outcome]) -> None:
    out = dimred("train", "method=synflow", "recipe=mnist", "--help").out
    assert (
        "method.rounds" in out
        and "recipe.optimizer" in out
        and "method.update_every" not in out
        and fits(out)
    )


OWN = '''
import nothing_of_the_kind

class Mine:
    """Prune by the light of the moon.

        score = |theta| * moon(t)

    Nobody, 2026.
    """
    speed: Annotated[int, at_least(1)]
    when: Literal["night", "day"]
'''


def test_ones_own_method_is_described_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method/mine.yaml").write_text(
        "_target_: mine_of_tests.Mine\nspeed: 2   # of light\nwhen: night\n"
    )
    (tmp_path / "method/faster-v2.yaml").write_text(
        "defaults:\n  - mine\n  - _self_\nspeed: 3   # of light\n"
    )
    (tmp_path / "method/same.yaml").write_text("defaults:\n- faster-v2\n- _self_\n")
    (tmp_path / "mine_of_tests.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, speed in (("mine", "2"), ("faster-v2", "3"), ("same", "3")):
        found = fields("method", group_files("method", [tmp_path])[name], [tmp_path])
        assert "score = |theta| * moon(t)" in found.about
        assert [field[:2] for field in found.fields] == [("speed", speed), ("when", "night")]
        assert found.fields[0].about() == "of light; 1 or more"
        assert found.fields[1].choices == ("night", "day")


def test_help_of_train_knows_the_folders_that_it_is_given(
    dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method/mine.yaml").write_text(
        "# What nobody has tried.\n_target_: nowhere.Mine\nspeed: 2 # of light\n"
    )
    for words in (("train", "method=mine"), ("methods", "mine")):
        out = dimred(
            *words, "--config-dir", str(tmp_path), *(["--help"] if words[0] == "train" else [])
        ).out
        assert "What nobody has tried." in out and "method.speed  2        of light" in out
    assert " mine" in dimred("train", "--config-dir", str(tmp_path), "--help").out


def test_the_range_of_a_field_is_that_of_its_annotation() -> None:
    allowed = {
        field.name: field.allowed
        for field in fields("recipe", group_files("recipe")["cifar"]).fields
    }
    assert (
        allowed["lr"] == allowed["epochs"] == "a number above 0"
        and allowed["batch_size"] == "1 or more"
        and allowed["warmup"] == "a number in [0, 1)"
    )
    assert allowed["steps"] == "null or 1 or more"
    assert allowed["milestones"] == "a list, each a fraction in (0, 1)"


# -- runs --------------------
def test_all_runs_are_listed_with_numbers_and_configuration(
    dimred: Callable[..., Outcome], train: Callable[..., Path], tmp_path: Path
) -> None:
    run = train("method=snip", "recipe.steps=3", "recipe.lr=0.07", "include=[fc1,fc2]")
    broken = tmp_path / "outputs/runs/digits/lenet300/freezenet-s0.95-seed10-0123456789"
    broken.mkdir()
    (broken / "result.json").write_text("[]")
    rows = json.loads(dimred("runs", str(tmp_path), "--format", "json").out)
    assert [row["state"] for row in rows] == ["damaged", "done"]
    row = rows[1]
    result = json.loads((run / "result.json").read_text())
    assert (
        row["folder"] == str(run) and row["recipe.lr"] == 0.07 and row["include"] == ["fc1", "fc2"]
    )
    assert row["method.examples"] == 128 and row["method"] == "snip"
    assert row["device"] == "auto" and row["device_name"] == result["device"]
    assert (
        row["test_accuracy"] == result["test_accuracy"]
        and row["storage.csr"] == result["storage"]["csr"]
    )
    table = list(
        csv.DictReader(io.StringIO(dimred("runs", "--runs", str(tmp_path), "--format=csv").out))
    )
    assert (
        float(table[1]["test_accuracy"]) == result["test_accuracy"]
        and table[0]["test_accuracy"] == ""
    )
    assert table[1]["include"] == '["fc1", "fc2"]' and table[1].keys() == {
        key for each in rows for key in each
    }
    shown = dimred("runs", str(tmp_path)).out
    assert (
        {run.name, broken.name} <= set(shown.split())
        and "2 runs: 1 damaged, 1 done" in shown
        and fits(shown.partition("\n")[2])
    )


def test_runs_that_are_not_there_and_options_that_do_not_exist(
    dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    assert "no folder" in dimred("runs", str(tmp_path / "none")).err
    assert "Did you mean '--format'" in dimred("runs", "--fromat", "csv").err
    assert "Did you mean 'csv'" in dimred("runs", "--format", "cvs").err
    assert "0 runs: none" in dimred("runs", str(tmp_path)).out
