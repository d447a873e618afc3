"""Early stopping: a training phase ends after so many epochs without a better accuracy."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from toy import RECIPE, Blobs, Crash, Fragile, model

from dimred.errors import UserError
from dimred.net import Net
from dimred.storage.folder import RunFolder
from dimred.training.loop import Train

PATIENT = dataclasses.replace(RECIPE, patience=2, epochs=8)


class Scripted(Train):
    """Validation accuracies are those of a list, by the number of steps done."""

    accuracies: Sequence[float] = ()

    def evaluate(self, split: str) -> tuple[float, float]:
        epoch = self.steps_done // self.epoch_steps
        return 0.0, self.accuracies[epoch - 1] if split == "val" else 0.5


def scripted(
    accuracies: Sequence[float], folder: RunFolder | None = None, **recipe: Any
) -> Scripted:
    settings = dataclasses.replace(PATIENT, **recipe)
    train = Scripted(Net(model(), seed=3), Blobs(), settings, folder=folder)
    train.accuracies = accuracies
    return train


def test_a_training_ends_after_epochs_without_a_better_accuracy() -> None:
    train = scripted([0.5, 0.4, 0.6, 0.6, 0.5])
    train()
    # the third is the best; an equal one is no better; each epoch has 8 steps
    assert train.steps_done == 40 and train.best.step == 24


def test_a_training_that_improves_takes_all_of_its_steps() -> None:
    train = scripted([0.1, 0.0, 0.2, 0.1, 0.3, 0.2, 0.4, 0.3])
    train()
    assert train.steps_done == 64


def test_every_training_is_patient_anew() -> None:
    train = scripted([0.5, 0.4, 0.3, *(0.2, 0.1, 0.0)])
    train()
    assert train.steps_done == 24
    train(8)  # rewound: of these 0.2 is the best
    assert train.steps_done == 48 and train.best.val_accuracy == 0.2


def test_phases_that_end_before_the_last_step_take_all_of_their_steps() -> None:
    train = scripted([0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    train(0, 48)
    assert train.steps_done == 48


def test_phases_with_pauses_take_all_of_their_steps_and_say_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    train = scripted([0.5] * 8)
    with caplog.at_level(logging.WARNING):
        for _ in train.steps():
            pass
    assert train.steps_done == 64
    assert "recipe.patience=2 does not end this training early" in caplog.text


@pytest.mark.parametrize("last", [7, 25, 38])
def test_a_resumed_training_ends_at_the_same_step(last: int, tmp_path: Path) -> None:
    accuracies, folder = [0.5, 0.4, 0.6, 0.5, 0.4, 0.9], RunFolder(tmp_path)
    train = scripted(accuracies, folder)
    train.observers.append(Fragile(last))
    with pytest.raises(Crash):
        train()
    again = scripted(accuracies, folder)
    again()
    assert again.steps_done == 40 and again.best.step == 24


def test_a_training_that_has_ended_early_does_not_go_on_when_it_is_resumed(tmp_path: Path) -> None:
    accuracies, folder = [0.5, 0.4, 0.3, 0.9], RunFolder(tmp_path)
    train = scripted(accuracies, folder)
    train()
    train.replay.save(0, 24)
    again = scripted(accuracies, folder)
    again()
    assert again.steps_done == 24


def test_early_stopping_needs_a_validation_split() -> None:
    data = Blobs()
    data.sizes = {**data.sizes, "val": 0}
    with pytest.raises(UserError, match=r"recipe.patience=2 is not allowed.*val_fraction"):
        Train(Net(model(), seed=3), data, PATIENT)
