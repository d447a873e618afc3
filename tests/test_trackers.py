"""Trackers: what they get, that a resumed run continues its own, and that none can end a run."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Outcome, assert_same, compose, result_of, twin, warnings_in
from own_trackers import calls

import dimred as package
from dimred.errors import ProcessLost, RunIsBusy, UserError
from dimred.runs.config.composition import composed_with_choices
from dimred.runs.config.schema import checked
from dimred.runs.run import run
from dimred.trackers.observer import Trackers, ending, scalars

EPOCHS = "recipe.epochs=3"  # of 20 steps


@pytest.fixture
def lines(tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """The file of the test's own tracker, and the words that choose it."""
    path = tmp_path / "lines.jsonl"
    return path, ("+tracker.lines._target_=own_trackers.Lines", f"+tracker.lines.path={path}")


def steps(path: Path) -> list[int]:
    return [int(name.split()[1]) for name, _ in calls(path) if name.startswith("log")]


# -- what trackers get --------------------
def test_a_tracker_gets_the_config_every_epoch_the_final_numbers_and_the_files(
    train: Callable[..., Path], lines: tuple[Path, tuple[str, ...]]
) -> None:
    path, words = lines
    run = train("method=snip", EPOCHS, *words)
    names = [name for name, _ in calls(path)]
    assert names == ["begin", "log 20", "log 40", "log 60", "finish", "end"]
    (begin,), (finish,), result = calls(path, "begin"), calls(path, "finish"), result_of(run)
    assert begin["config"]["choices"]["method"] == "snip" and begin["config"]["sparsity"] == 0.9
    assert finish["final/test_accuracy"] == result["test_accuracy"]
    assert finish["final/dim"] == 5020
    assert finish["files"] == ["config.yaml", "result.json", "masks.npz"]
    history = package.load(run).history
    for line, logged in zip(history, calls(path, "log"), strict=True):
        assert scalars(line).items() - {("step", line["step"])} <= logged.items()
        check_densities(run, logged, pruned=True)


def test_densities_are_those_of_the_masks_and_of_the_weights(
    train: Callable[..., Path], lines: tuple[Path, tuple[str, ...]]
) -> None:
    """A frozen weight is not zero, and does not train."""
    path, words = lines
    run = train("method=freezenet", "recipe.steps=4", *words)
    (logged,) = calls(path, "log")
    check_densities(run, logged, pruned=False)


def check_densities(run: Path, logged: dict[str, float], pruned: bool) -> None:
    with np.load(run / "masks.npz") as masks:
        for name in ("fc1.weight", "fc2.weight", "fc3.weight"):
            trained = masks[name].mean()
            assert logged[f"trained/{name}"] == pytest.approx(trained)
            assert logged[f"density/{name}"] == pytest.approx(trained if pruned else 1)


def test_steps_go_on_over_the_rounds_of_a_ticket(
    train: Callable[..., Path], lines: tuple[Path, tuple[str, ...]]
) -> None:
    path, words = lines
    run = train("method=imp", "method.prune_rate=0.9", "recipe.steps=4", *words)
    assert steps(path) == [4, 8] and result_of(run)["steps"] == 8


def test_a_tracked_run_is_the_run_without_a_tracker(
    train: Callable[..., Path], lines: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    settings = ("method=bernoulli_supermask", EPOCHS)  # which draws masks in training
    plain = train(*settings)
    tracked = train(*settings, *lines[1], outputs=tmp_path / "tracked")
    assert tracked == twin(plain, tmp_path / "tracked")
    assert_same(plain, tracked)
    assert "tracker" not in (tracked / "config.yaml").read_text()


# -- interruptions --------------------
@pytest.mark.parametrize("checkpoint_seconds", ["0", "1000"])
def test_a_resumed_run_continues_its_own_tracking_and_logs_no_step_twice(
    checkpoint_seconds: str,
    dimred: Callable[..., Outcome],
    lines: tuple[Path, tuple[str, ...]],
    tmp_path: Path,
) -> None:
    """The process is killed between the log of step 40 and the next checkpoint; without any, the
    run begins again."""
    path, words = lines
    outputs, often = f"outputs={tmp_path}", f"checkpoint_seconds={checkpoint_seconds}"
    command = ("train", EPOCHS, outputs, often, *words, "+tracker.lines.kill=log 40")
    assert dimred(*command).code == -signal.SIGKILL
    assert dimred(*command).code == 0
    assert steps(path) == [20, 40, 60]
    assert [(each["id"], each["step"]) for each in calls(path, "begin")] == [
        (None, 0),
        ("an id", 40),
    ]


def test_a_run_that_was_killed_after_its_result_gets_its_final_numbers_once(
    train: Callable[..., Path], lines: tuple[Path, tuple[str, ...]]
) -> None:
    path, words = lines
    record = train("recipe.steps=2", *words) / "trackers/lines.json"
    record.write_text(record.read_text().replace('"finished": true', '"finished": false'))
    path.unlink()
    for _ in range(2):
        train("recipe.steps=2", *words)
    assert [name for name, _ in calls(path)] == ["begin", "finish", "end"]


def test_a_tracker_of_a_run_that_was_finished_without_it_gets_nothing_and_the_log_says_so(
    dimred: Callable[..., Outcome], lines: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    path, words = lines
    command = ("train", "recipe.steps=2", f"outputs={tmp_path}")
    assert dimred(*command).code == 0
    late = dimred(*command, *words)
    assert late.code == 0 and not path.exists()
    assert "tracker=lines: the run was finished without it, nothing is sent" in late.err


def test_a_stopped_run_says_so_to_its_tracker(
    lines: tuple[Path, tuple[str, ...]], tmp_path: Path, dimred: Callable[..., Outcome]
) -> None:
    path, words = lines
    failed = dimred("train", "recipe.lr=1e10", "recipe.steps=9", f"outputs={tmp_path}", *words)
    assert failed.code == 1 and calls(path, "end") == [{"status": "failed"}]


# -- failures --------------------
@pytest.mark.parametrize("call", ["begin", "log", "finish", "end"])
def test_a_tracker_that_fails_does_not_end_the_run(
    call: str,
    lines: tuple[Path, tuple[str, ...]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    words = (EPOCHS, *lines[1], f"+tracker.lines.fail={call}", f"outputs={tmp_path}")
    cfg, choices = composed_with_choices(words)
    assert run(cfg, choices)["status"] == "done"
    assert warnings_in(caplog) == ["tracker=lines stopped: OSError: no connection. The run goes on"]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_missing_package_is_a_line_that_names_the_extra(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    for module in [*sys.modules]:
        if module.partition(".")[0] == name or module.startswith("torch.utils.tensorboard"):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.chdir(tmp_path)
    result = package.train("snip", tracker=name, recipe={"steps": 2})
    assert result.status == "done" and warnings_in(caplog) == [
        f"tracker={name} stopped: it needs a package that is not installed: "
        f"pip install 'dimred[{name}]'. The run goes on"
    ]


def test_names_and_keys_of_trackers_are_checked(dimred: Callable[..., Outcome]) -> None:
    assert "Did you mean 'wandb'" in dimred("train", "tracker=wandbb").err
    wrong = dimred("train", "tracker=wandb", "tracker.wandb.projct=a")
    assert wrong.code == 1 and "Did you mean 'project'" in wrong.err
    with pytest.raises(UserError, match="must be"):
        checked(compose("tracker=wandb", "tracker.wandb.mode=on"))
    with pytest.raises(UserError, match=r"# @package tracker\.NAME"):
        checked(compose("+tracker._target_=own_trackers.Lines", "+tracker.path=a"))


# -- docs/trackers.md --------------------
COMMANDS = re.findall(r"```sh\n(.*?)\n```", (ROOT / "docs/trackers.md").read_text())


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_page_run(
    command: str, dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    ((file, text),) = re.findall(
        r"```python\n# (\S+)\n(.*?)```", (ROOT / "docs/trackers.md").read_text(), re.S
    )
    (tmp_path / file).write_text(text)
    *_, words = command.partition("dimred ")
    short = ("recipe.steps=6", "--cfg", "job") if "sqlite" in command else ("recipe.steps=6",)
    done = dimred(*words.split(), *short, before=partial(in_folder, tmp_path))
    assert done.code == 0 and "tracker=" not in done.err, done.err
    if "losses.txt" in command:
        assert len((tmp_path / "losses.txt").read_text().splitlines()) == 2


def in_folder(folder: Path) -> None:
    os.chdir(folder)
    sys.path.insert(0, str(folder))


# -- the real ones --------------------
def test_tensorboard_and_mlflow_continue_a_killed_run(
    dimred: Callable[..., Outcome],
    lines: tuple[Path, tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store, (_, words) = tmp_path / "mlflow", lines
    chosen = ("tracker=[tensorboard,mlflow]", f"tracker.mlflow.uri=file://{store}")
    command = ("train", EPOCHS, f"outputs={tmp_path}", *chosen, *words)
    killed = dimred(*command, "+tracker.lines.kill=log 40", before=allow_files)
    assert killed.code == -signal.SIGKILL
    run = continued(dimred(*command, before=allow_files))
    check_tensorboard(run)
    check_mlflow(store, run)


def test_wandb_continues_a_stopped_run_offline(
    dimred: Callable[..., Outcome], lines: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    """Stopped, not killed: W&B keeps what it has not yet written of an offline run in memory."""
    chosen = ("tracker=wandb", "tracker.wandb.mode=offline")
    command = ("train", EPOCHS, f"outputs={tmp_path}", *chosen, *lines[1])
    assert dimred(*command, "+tracker.lines.stop=log 40").code != 0
    check_wandb(continued(dimred(*command)))


def continued(outcome: Outcome) -> Path:
    """The folder of a run whose trackers were content."""
    assert outcome.code == 0 and "tracker=" not in outcome.err, outcome.err
    return Path(outcome.out.splitlines()[-1].strip())


def allow_files() -> None:
    """MLflow takes seconds to create a database, and none to create files."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"


def check_tensorboard(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    for name in ("train_loss", "overlap", "density/fc1.weight"):
        assert [event.step for event in found.Scalars(name)] == [20, 40, 60]
    (final,) = found.Scalars("final/test_accuracy")
    assert final.value == pytest.approx(result_of(run)["test_accuracy"])


def check_wandb(run: Path) -> None:
    one, other = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
    assert one.name == other.name  # which holds the id
    records = [*wandb_records(one), *wandb_records(other)]
    history = [record.history for record in records if record.HasField("history")]
    assert [each.step.num for each in history] == [20, 40, 60]
    for each in history:
        logged = {item.nested_key[0] for item in each.item}
        assert {"train_loss", "overlap", "density/fc1.weight"} <= logged
    final = {item.key: item.value_json for record in records for item in record.summary.update}
    assert json.loads(final["final/test_accuracy"]) == result_of(run)["test_accuracy"]
    assert any(record.HasField("artifact") for record in records)


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run, in the format of LevelDB's log: a header of 7 bytes, then
    blocks of 32 kB with pieces of records."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := -at % 2**15) < 7:  # too little for the header of a piece
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield Record.FromString(record)
            record = b""


def check_mlflow(store: Path, run: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"file://{store}")
    experiment = client.get_experiment_by_name("dimred")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == run.name and found.info.status == "FINISHED"
    assert found.data.params["method.examples"] == "128" and found.data.params["seed"] == "0"
    for name in ("train_loss", "overlap", "density/fc1.weight"):
        assert [m.step for m in client.get_metric_history(found.info.run_id, name)] == [20, 40, 60]
    result = result_of(run)
    assert found.data.metrics["final/test_accuracy"] == result["test_accuracy"]
    stored = [file.path for file in client.list_artifacts(found.info.run_id)]
    assert stored == ["config.yaml", "masks.npz", "result.json"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError(), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (ProcessLost("a rank was killed"), "interrupted"),
        (RunIsBusy("another machine has taken the run over"), "interrupted"),
    ],
)
def test_a_run_that_goes_on_elsewhere_is_not_tracked_as_failed(
    error: BaseException, status: str, tmp_path: Path
) -> None:
    trackers, ended = Trackers([], tmp_path), list[str]()
    trackers.end = ended.append  # type: ignore[method-assign]
    with pytest.raises(type(error)), ending(trackers):
        raise error
    assert ended == [status]
