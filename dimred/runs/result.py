"""What result.json says of a run: accuracies, counts (counts.py), FLOPs, sizes, the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dimred.files import Json
from dimred.net.state import state_bytes
from dimred.runs.compact_file import as_bytes
from dimred.runs.counts import counts
from dimred.runs.environment import describe_device, peak_memory, software
from dimred.storage.sizes import smallest, storage
from dimred.training.evaluate import Best
from dimred.training.loop import Train

#: inference is timed with one image, and with as many
LARGE_BATCH = 128


def result_of(train: Train, model: Json, images: Json, inputs: Mapping[str, Json]) -> Json:
    """The result of a run that has trained.

    model: its configuration. images: their "shape" and the number of "classes". inputs:
    fingerprints of what the run read.
    """
    net = train.net
    accuracies = accuracies_of(train)
    sizes = storage(net, train.seed)
    return {
        "status": "done",
        "data": train.data.name,
        "inputs": inputs,
        "device": describe_device(train.device),
        **accuracies,
        **counts(net, train.exploration),
        "parameters": sum(p.numel() for p in net.model.parameters()),
        "collapsed": sorted(net.collapsed),
        "measures": dict(net.reported),
        **costs(train),
        "steps": train.steps_done,
        **train.stepper.report(),
        **train.ranks.report(train.recipe),
        "seconds": train.replay.elapsed(),
        **measured(train),
        "peak_memory_bytes": peak_memory(train.device),
        "state_bytes": state_bytes(net),
        "storage": sizes,
        "storage_bytes": smallest(sizes),
        "compact_file_bytes": len(as_bytes(net, images | {"model": model})),
        **software(),
    }


def accuracies_of(train: Train) -> dict[str, Any]:
    """Of the final network, and of the average of its weights if there is one."""
    found, average = accuracies_at(train, train.best), train.average
    if average.decay:
        with average.in_place():
            of_average = accuracies_at(train, average.best)
        found |= {f"ema_{name}": value for name, value in of_average.items()}
    return found


def accuracies_at(train: Train, best: Best) -> dict[str, Any]:
    """With the present values of weights, and at the best epoch on the validation split. That is
    the end of training where the number of trained weights has changed since every evaluation."""
    loss, accuracy = train.evaluate("test")
    last = {"test_accuracy": accuracy, "test_loss": loss}
    if not train.data.sizes["val"]:
        selected = ("val_accuracy", "best_val_accuracy", "best_val_test_accuracy", "best_val_step")
        return {**last, **dict.fromkeys(selected)}
    val_accuracy = train.evaluate("val")[1]
    if best.dim != train.net.dim:
        best = Best(len(train), train.net.dim, val_accuracy, accuracy)
    return {
        **last,
        "val_accuracy": val_accuracy,
        "best_val_accuracy": best.val_accuracy,
        "best_val_test_accuracy": best.test_accuracy,
        "best_val_step": best.step,
    }


def costs(train: Train) -> dict[str, float]:
    """FLOPs of the whole run and of the final network for one example, also relative to those of
    dense training and of the dense network."""
    flops = train.costs
    training, inference = flops.total, flops.inference()
    dense = flops.dense(len(train), train.recipe.batch_size)
    return {
        "training_flops": training,
        "scoring_flops": flops.scoring,
        "training_flops_relative": relative(training, dense),
        "inference_flops": inference,
        "inference_flops_relative": relative(inference, flops.dense_forward),
    }


def measured(train: Train) -> dict[str, Any]:
    """How products were computed, how long training steps took, and how long inference takes, by
    batch size."""
    arithmetic = train.arithmetic
    images, _ = train.data.sample(min(LARGE_BATCH, train.data.sizes["train"]), train.seed)
    found: dict[str, Any] = {
        "arithmetic": arithmetic.kind,
        "step_seconds": train.step_times.median(),
        "inference_seconds": {
            str(size): arithmetic.inference_seconds(images[:size]) for size in (1, LARGE_BATCH)
        },
    }
    if arithmetic.kind != "dense":
        found["sparse_products"] = [name for name, why in arithmetic.layers().items() if not why]
    return found


def relative(flops: int, dense: int) -> float:
    """The ratio; 1 for a model without products, whose dense FLOPs are 0."""
    return flops / dense if dense else 1.0
