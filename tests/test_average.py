"""The moving average of weights, through changes of coordinates and interruptions."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, compose
from torch import Tensor, nn
from toy import RECIPE, Blobs, Crash, Fragile, model, set_up, watch

from dimred.conformance.make import Make
from dimred.conformance.observe import difference, run
from dimred.net import Net
from dimred.net.transforms import Transform
from dimred.storage.folder import RunFolder
from dimred.training.average import Average
from dimred.training.loop import Train


def averages(train: Train) -> dict[str, Tensor]:
    with train.average.in_place():
        return copy.deepcopy(train.net.state_dict())


def test_the_average_is_that_of_pytorch() -> None:
    net, train = set_up(ema=0.9, steps=20)
    theirs = torch.optim.swa_utils.AveragedModel(
        net.model,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9),
        use_buffers=True,
    )
    watch(train, lambda step: theirs.update_parameters(net.model))
    train()
    found = averages(train)
    for name, value in theirs.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(found[name], value)


def test_evaluating_the_average_leaves_every_bit_of_the_net() -> None:
    nets = [set_up(ema=ema) for ema in (0.0, 0.9)]
    for _, train in nets:
        train()
    assert not difference(nets[0][0].state(), nets[1][0].state())
    assert nets[0][1].average.state() == {}


def line(*values: float) -> Net:
    """A net of one weight."""
    layer = nn.Linear(len(values), 1, bias=False)
    layer.weight.data.copy_(torch.tensor([values]))
    return Net(layer)


def set_to(net: Net, *values: float) -> None:
    with torch.no_grad():
        net.weights["weight"].psi.copy_(torch.tensor(values))


def test_survivors_keep_their_average_and_newcomers_start_at_their_value() -> None:
    net = line(1.0, 2.0, 3.0, 4.0)
    average = Average(net, 0.5)
    average.update()
    set_to(net, 3.0, 4.0, 5.0, 6.0)
    average.update()  # 2, 3, 4, 5
    net.keep({"weight": torch.tensor([1, 3])})
    average.update()  # of 4 and 6: 3.5, 5.5
    assert average.state()["weight"].tolist() == [3.5, 5.5]
    net.keep({"weight": torch.tensor([0, 1])})  # entry 0 joins at 0, and entry 3 is gone
    set_to(net, 8.0, 3.5)
    average.update()
    assert average.state()["weight"].tolist() == [8.0, 3.5]
    net.keep({"weight": torch.tensor([1, 3])})  # entry 3 has no average any more
    average.update()
    assert average.state()["weight"].tolist() == [3.5, 0.0]
    assert sum(each.numel() for each in average.state().values()) == net.dim


class Twice(Transform):
    def forward(self, theta: Tensor) -> Tensor:
        return 2 * theta


def test_an_average_starts_again_where_coordinates_mean_something_else() -> None:
    net = line(1.0, 2.0)
    average = Average(net, 0.5)
    net.add_transforms({"weight": Twice()})
    average.update()
    set_to(net, 3.0, 4.0)
    average.update()
    assert average.state()["weight"].tolist() == [2.0, 3.0]
    net.merge_transforms()
    average.update()
    assert average.state()["weight"].tolist() == [6.0, 8.0]


def test_what_is_frozen_has_no_average() -> None:
    net, train = set_up(ema=0.5)
    net.freeze(dict.fromkeys(name for name in net.parameters() if name != "6.weight"))
    net.freeze({"1.running_mean": None, "1.running_var": None})
    train(0, 2)
    found = {name for name, value in train.average.state().items() if value.numel()}
    assert found == {"6.weight"}


def test_a_rewound_training_averages_anew() -> None:
    net, train = set_up(ema=0.99)
    start = train.snapshot()
    train()
    net.restore(start)
    train(0, 1)
    assert all(
        torch.equal(value, net.state_dict()[name]) for name, value in averages(train).items()
    )


def watched(path: Path, crash: int = -1) -> Train:
    """A weight whose support changes, and norms."""
    path.mkdir(exist_ok=True)
    folder = RunFolder(path)
    net = Net(model(), seed=3)
    recipe = dataclasses.replace(RECIPE, ema=0.8)
    train = Train(net, Blobs(), recipe, seed=3, folder=folder)
    train.observers.append(Fragile(crash))
    for t in train.steps():
        if t % 5 == 4:
            net.keep({"4.weight": torch.arange(t, 768, 3)})
    return train


@pytest.mark.parametrize("crash", [6, 20, 38])
def test_a_resumed_run_has_the_same_average(crash: int, tmp_path: Path) -> None:
    whole = watched(tmp_path / "whole")
    with pytest.raises(Crash):
        watched(tmp_path / "again", crash)
    again = watched(tmp_path / "again")
    assert not difference(whole.average.state(), again.average.state())
    assert whole.average.best == again.average.best
    paths = [tmp_path / name / "metrics.jsonl" for name in ("whole", "again")]
    lines = [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]
    assert lines[0] == lines[1]
    assert {"ema_val_loss", "ema_val_accuracy"} <= lines[0][-1].keys()


@pytest.mark.parametrize("method", ["rigl", "gmp", "edge_popup", "srigl"])
def test_captured_steps_go_on_after_the_average_was_evaluated(method: str) -> None:
    make = Make(method, compose(f"method={method}"))
    found = [run(make(), "residual", steps=30, emulated=on, ema=0.9) for on in (True, False)]
    plain = run(make(), "residual", steps=30, emulated=True)
    assert found[0].trace.captured == plain.trace.captured
    assert not difference(found[0].trace.state, found[1].trace.state)
    assert not difference(found[0].trace.state, plain.trace.state)


def test_a_result_has_the_numbers_of_the_average(train: Callable[..., Path]) -> None:
    folder = train("method=snip", "recipe.epochs=2", "recipe.ema=0.99")
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    for name in ("test_accuracy", "val_accuracy", "best_val_accuracy", "best_val_test_accuracy"):
        assert 0 <= result[f"ema_{name}"] <= 1
    assert result["ema_test_loss"] > result["test_loss"]  # it lags behind in a short training


def test_the_lines_of_epochs_and_the_summary_show_the_accuracies_of_the_average(
    start: Callable[..., Command], tmp_path: Path
) -> None:
    words = ("recipe.epochs=2", "recipe.ema=0.99", f"outputs={tmp_path}")
    code, out, err = start("train", "method=snip", *words).wait()
    assert code == 0, err
    (folder,) = tmp_path.glob("runs/*/*/*")
    for text in (folder / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        of_average = f"averaged weights {100 * line['ema_val_accuracy']:.1f} %"
        assert f"validation {100 * line['val_accuracy']:.1f} % ({of_average})" in err
    result = json.loads((folder / "result.json").read_text())
    name = "  test accuracy of averaged weights"
    assert f"{name}: {100 * result['ema_test_accuracy']:.2f} %\n" in out
    best = 100 * result["ema_best_val_test_accuracy"]
    assert f"{name} at their best epoch: {best:.2f} %\n" in out
