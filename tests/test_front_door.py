"""dimred from Python: the names of `import dimred`, and that its runs are those of the command
line."""

from __future__ import annotations

import gc
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Outcome

import dimred as front_door
from dimred.errors import UserError

SHORT = {"epochs": 2, "milestones": (0.5, 0.75)}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def snip(tmp_path_factory: pytest.TempPathFactory) -> front_door.Result:
    return front_door.train(
        "snip", sparsity=0.95, seed=3, outputs=tmp_path_factory.mktemp("snip"), recipe=SHORT
    )


def test_import_dimred_imports_no_torch() -> None:
    program = "import dimred, sys; assert not {'torch', 'numpy', 'hydra'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_name_of_the_front_door_is_there() -> None:
    for name in front_door.__all__:
        assert getattr(front_door, name) is not None
    assert set(front_door.__all__) <= set(dir(front_door))


def test_no_name_of_the_front_door_is_that_of_a_room() -> None:
    rooms = {path.name for path in (ROOT / "dimred").iterdir() if path.is_dir()}
    assert not rooms & set(front_door.__all__)


def test_python_dash_m_dimred_is_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dimred", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == front_door.__version__


# -- a run is that of the command line --------------------
def test_the_command_line_finds_a_run_from_python_finished(
    snip: front_door.Result, dimred: Callable[..., Outcome]
) -> None:
    outputs = snip.folder.parents[3]
    again = dimred(
        "train", "sparsity=0.95", "seed=3", "recipe.epochs=2", "recipe.milestones=[0.5,0.75]",
        f"outputs={outputs}",
    )  # fmt: skip
    assert f"finished already: {snip.folder}" in again.err


def test_python_finds_a_run_of_the_command_line_finished(train: Callable[..., Path]) -> None:
    folder = train("method=freezenet", "recipe.steps=3", "dataset.val_fraction=0.3")
    written = (folder / "result.json").stat().st_mtime_ns
    result = front_door.train(
        "freezenet", outputs="outputs", recipe={"steps": 3}, dataset={"val_fraction": 0.3}
    )
    assert result.folder == folder
    assert (folder / "result.json").stat().st_mtime_ns == written


def test_overrides_may_be_nested_or_have_dots(snip: front_door.Result) -> None:
    dotted = {"recipe.epochs": np.int64(2), "recipe.milestones": [0.5, 0.75]}
    again = front_door.train(
        "snip", sparsity=0.95, seed=3, outputs=snip.folder.parents[3], **dotted
    )
    assert again.folder == snip.folder


def test_a_program_that_uses_hydra_may_train(snip: front_door.Result) -> None:
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    with hydra.initialize_config_dir(str(ROOT / "conf" / "recipe"), version_base="1.3"):
        with pytest.raises(UserError, match="unknown method 'snipp'"):
            front_door.train("snipp")
        assert GlobalHydra.instance().is_initialized()
        assert hydra.compose("digits").lr == 0.1


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"method": "rigll"}, "unknown method 'rigll'. Did you mean 'rigl'"),
        ({"sparsty": 0.9}, "unknown key sparsty. Did you mean 'sparsity'"),
        ({"recipe": {"epoch": 2}}, "unknown key recipe.epoch. Did you mean 'epochs'"),
        ({"sparsity": 1.5}, "sparsity=1.5 is not allowed"),
        ({"hydra": {"job": 3}}, "'hydra' is no key"),
        ({"recipe.epochs": 2, "recipe": {"epochs": 3}}, "recipe.epochs=3 is not allowed"),
        ({"seed": object()}, "a number, a string"),
        ({"method.sparsity": 0.5}, "Write sparsity=0.5"),
    ],
)
def test_what_is_unknown_is_an_error_with_the_nearest_name(
    overrides: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        front_door.train(**{"method": "snip", **overrides})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["a b", "true", "1e3", "null", "a=[b,c]", 'quo"ted', "~/é", ""])
def test_a_string_reaches_the_configuration_as_it_is(text: str) -> None:
    from dimred.runs.config.composition import composed
    from dimred.runs.config.overrides import from_values

    assert composed(from_values({"data_dir": text})).data_dir == text


# -- results --------------------
def test_numbers_of_result_json_are_attributes(snip: front_door.Result) -> None:
    assert snip.dim == 2510 and snip.density == 0.05  # 5 % of 64 * 300 + 300 * 100 + 100 * 10
    assert 0 < snip.test_accuracy <= 1
    with pytest.raises(AttributeError, match="Did you mean 'test_accuracy'"):
        snip.test_acuracy  # noqa: B018


def test_history_has_a_row_per_epoch(snip: front_door.Result) -> None:
    assert [row["epoch"] for row in snip.history] == [1, 2]


def test_masks_count_the_trained_weights(snip: front_door.Result) -> None:
    assert sum(int(mask.sum()) for mask in snip.masks().values()) == 2510


def test_the_model_is_plain_and_sparse_and_computes_as_the_net_does(
    snip: front_door.Result,
) -> None:
    model = snip.model()
    assert type(model).__module__.startswith("torch.nn")
    weights = [p for p in model.parameters() if p.dim() == 2]
    assert sum(int(w.count_nonzero()) for w in weights) <= 2510
    assert all(p.requires_grad for p in model.parameters())
    images = torch.randn(4, 1, 8, 8)
    net = snip.net()
    net.train(False)
    torch.testing.assert_close(model(images), net(images))


def test_load_reads_a_finished_run(snip: front_door.Result) -> None:
    assert front_door.load(snip.folder) == snip


def test_load_refuses_what_is_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Name the folder of a finished run"):
        front_door.load(tmp_path)


def test_results_are_rows_of_a_table(snip: front_door.Result) -> None:
    (row,) = front_door.results(snip.folder.parents[3])
    assert (row["method"], row["recipe.epochs"], row["dim"]) == ("snip", 2, 2510)
    assert row["test_accuracy"] == snip.test_accuracy


# -- sweeps --------------------
def test_a_sweep_runs_all_combinations_and_reports_what_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = front_door.sweep(
        ["snip", "random"], sparsity=[0.5, 0.99999], seed=range(1), recipe={"steps": 1}
    )
    assert [each.method for each in found] == ["snip", "snip", "random", "random"]
    assert [each.status for each in found] == ["done", "failed"] * 2
    assert "leaves 1 of 50200 weights" in found[1].reason
    assert "leaves 1 of 50200 weights" in caplog.text
    with pytest.raises(UserError, match=r"has failed .*leaves 1 of 50200"):
        front_door.load(found[1].folder)


def test_an_array_is_swept_and_a_tuple_is_one_value() -> None:
    found = front_door.sweep(
        "random",
        sparsity=np.linspace(0.5, 0.6, 2),
        recipe={"steps": 1, "milestones": (0.5, 0.75)},
    )
    assert [each.sparsity for each in found] == [0.5, 0.6]


def test_a_sweep_with_an_unknown_name_trains_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown method"):
        front_door.sweep(["snip", "snipp"], recipe={"steps": 1})
    assert not list(tmp_path.iterdir())


# -- interrupting --------------------
class Interrupting(logging.Handler):
    """Presses Ctrl-C at the first line of progress."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger("dimred.progress").removeHandler(self)
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_a_keyboard_interrupt_and_the_run_resumes_to_the_same_bits() -> None:
    logging.getLogger("dimred.progress").addHandler(Interrupting())
    with pytest.raises(KeyboardInterrupt, match="after step 20"):
        front_door.train("rigl", recipe=SHORT)
    resumed = front_door.train("rigl", recipe=SHORT)
    whole = front_door.train("rigl", recipe=SHORT, outputs="elsewhere")
    assert resumed.folder.name == whole.folder.name
    assert [row["epoch"] for row in resumed.history] == [1, 2]
    weights = whole.model().state_dict()
    for name, value in resumed.model().state_dict().items():
        assert torch.equal(value, weights[name]), name


# -- messages --------------------
def test_warnings_are_shown_and_progress_is_in_the_log_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as in a new process: a command that ran in this one has set the level
    monkeypatch.setattr(logging.getLogger("dimred"), "level", logging.NOTSET)
    result = front_door.train("dense", sparsity=0.5, recipe={"steps": 1})
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "method=dense has no sparsity" in caplog.text
    assert "step 1: loss" in (result.folder / "log.txt").read_text()


def test_training_leaves_no_handlers_behind() -> None:
    before = [*logging.getLogger().handlers], [*logging.getLogger("dimred").handlers]
    front_door.train("dense", recipe={"steps": 1})
    assert before == (logging.getLogger().handlers, logging.getLogger("dimred").handlers)


def test_a_run_that_is_over_leaves_its_memory_at_once(tmp_path: Path) -> None:
    def nets() -> int:
        return sum(type(each) is front_door.Net for each in gc.get_objects())

    gc.collect()
    gc.disable()  # what is part of a cycle would stay until it runs
    try:
        before = nets()
        front_door.train("rigl", outputs=str(tmp_path), recipe={"steps": 2})
        assert nets() == before
    finally:
        gc.enable()
