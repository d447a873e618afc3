"""Bytes of one run: what a step sums over several GPUs, the run's folder, and the data it reads.

Tensors are counted by dimred's own code: a net as sparse as the run's reduces its gradients and
writes its files. The text of a folder is what finished runs had (`scripts/scale --check`).
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from run_costs import DATA, built, images, trained_on

from dimred.net import Net
from dimred.runs.nets import save_net
from dimred.scores import random_scores
from dimred.select.topk import topk
from dimred.storage.masks import write_masks
from dimred.training.group import Group
from dimred.training.recipe import Recipe

#: bytes of text in a folder: of every run, of each of its layers, of each evaluation
TEXT, OF_A_LAYER, OF_AN_EVALUATION = 3_500, 170, 450


class Tensors(NamedTuple):
    reduced: int  # in a step over several processes
    written: int  # model.safetensors and masks.npz
    layers: int


def tensors(description: Mapping[str, Any], sparse: bool = True) -> Tensors:
    """The bytes of a net with the sparsity of a run, or of the dense net."""
    method, data = description["method"], description["dataset"]["_target_"]
    sparsity = method.get("sparsity") if sparse else None
    return _tensors(json.dumps(description["model"], sort_keys=True), data, sparsity or 0.0)


@cache
def _tensors(model: str, data: str, sparsity: float) -> Tensors:
    net = built(json.loads(model), data)
    if sparsity:
        net.keep(topk(random_scores(net, "scale"), round((1 - sparsity) * net.total)))
    return Tensors(reduced(net), written(net), len(net.weights))


def reduced(net: Net) -> int:
    """Bytes that a step sums, with the gradients of all that trains: a group of one process counts
    them as a group of many does."""
    for parameter in net.parameters().values():
        parameter.grad = torch.zeros_like(parameter)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        group = Group()
        group.reduce(net)
        return int(group.report(Recipe())["reduced_bytes_per_step"])
    finally:
        dist.destroy_process_group()


def written(net: Net) -> int:
    with tempfile.TemporaryDirectory() as place:
        files = Path(place, "model.safetensors"), Path(place, "masks.npz")
        save_net(files[0], net, {}, {})
        masks = {name: w.trained().view(w.param.shape) for name, w in net.weights.items()}
        write_masks(files[1], {name: mask.numpy() for name, mask in masks.items()})
        return sum(file.stat().st_size for file in files)


def folder(description: Mapping[str, Any]) -> int:
    """Bytes of a finished run's folder."""
    net, data = tensors(description), description["dataset"]
    # one evaluation after each epoch
    epochs = images(description) / trained_on(data)
    return net.written + TEXT + OF_A_LAYER * net.layers + OF_AN_EVALUATION * math.ceil(epochs)


def data_bytes(data: str) -> int:
    """Bytes of all images of a data set, as pixels."""
    about = DATA[data]
    return (about.train + about.test) * math.prod(about.shape)
