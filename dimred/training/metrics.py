"""A line of metrics.jsonl: what is known of a training at the end of an epoch or a phase."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dimred.training.loop import Train


def metrics_of(train: Train, phase: int, step: int, loss: float, accuracy: float) -> dict[str, Any]:
    """After so many steps of a phase; loss and accuracy are those on the batches of its steps."""
    net = train.net
    line = {
        "phase": phase,
        "step": step,
        "epoch": step / train.epoch_steps,
        "lr": train.lr_at(step - 1),
        "train_loss": loss,
        "train_accuracy": accuracy,
        "dim": net.dim,
        **train.exploration.measures(),
        "training_flops": train.costs.total,
    }
    if train.data.sizes["val"]:
        line |= train.best.update(step, net.dim, train.evaluate)
        line |= train.average.evaluated(step, train.evaluate)
    return line
