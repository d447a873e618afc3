"""From a composed configuration to a result. A run is a pure function of its description, memoised
on disk: the name of its folder ends in a digest of the description, so the same command finds it
again, finished or interrupted."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import re
import resource
import subprocess
import sys
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from dimred.errors import NO_MEMORY, UserError
from dimred.methods.base import Method
from dimred.net import Net
from dimred.net.layers import dense_matrices
from dimred.net.state import state_bytes
from dimred.runs.build import build, own_weights
from dimred.runs.compact_file import as_bytes
from dimred.runs.config.files import CHOICES, GROUPS, Choices
from dimred.runs.config.schema import checked
from dimred.runs.counts import counts
from dimred.runs.environment import find_device
from dimred.runs.identity import describe, folder_of
from dimred.runs.inputs import fingerprint, paths_in, require_same
from dimred.runs.nets import BUILT, build_net, save_net
from dimred.runs.signals import stopping_at_signals
from dimred.runs.trial import try_batch
from dimred.storage.files import Json, write
from dimred.storage.folder import RunFolder
from dimred.storage.sizes import smallest, storage
from dimred.training.loop import Best, Train
from dimred.training.recipe import Recipe

log = logging.getLogger("dimred")


def run(
    cfg: DictConfig,
    choices: Choices,
    explicit: Collection[str] = (),
    command: Sequence[str] | None = None,
) -> Json:
    """Compute a run, or what is left of it, or nothing if it is finished; its result. UserError on
    whatever is wrong.

    explicit: the keys that the user typed; a warning names those that the method does not use
    command: for result.json, by default that of the process"""
    cfg = checked(cfg)
    for key in {"sparsity", "allocation"} & set(explicit) - set(cfg.method):
        log.warning(
            "method=%s has no %s: %s=%s is not used",
            choices["method"],
            key,
            key,
            choices.get(key) or cfg[key],
        )
    method, recipe = build(cfg.method, "method"), build(cfg.recipe, "recipe")
    path = folder_of(cfg, choices, describe(cfg))
    with RunFolder(path) as folder:
        finished = folder.result()
        folder.inputs = inputs_of(cfg)
        require_same(folder.recorded_inputs(finished), folder.inputs, path)
        if finished and finished["status"] == "done":
            log.info("finished already: %s", path)
            folder.forget_checkpoint()
            return finished
        device = find_device(cfg.device)
        with logging_to(path / "log.txt"):
            write(path / "config.yaml", OmegaConf.to_yaml({CHOICES: dict(choices), **cfg}).encode())
            about: Json = {
                **choices,
                "sparsity": cfg.sparsity if "sparsity" in cfg.method else None,
                "seed": cfg.seed,
                "folder": str(path),
                "digest": path.name.rpartition("-")[2],
                "command": [*(command or sys.argv)],
            }
            try:
                result = about | compute(cfg, method, recipe, device, folder)
            except Exception as error:
                message = readable(error)
                log.debug("%s", traceback.format_exc())
                folder.write_result({**about, "status": "failed", "reason": str(message)})
                raise message from error
        folder.write_result(result)
        folder.forget_checkpoint()
    return result


def compute(
    cfg: DictConfig, method: Method, recipe: Recipe, device: torch.device, folder: RunFolder
) -> Json:
    """Build, train, and write what came of it."""
    data = build(cfg.dataset, "dataset").to(device)
    known = {each["path"] for each in folder.inputs.values()}
    read = {str(path.resolve()): fingerprint(path) for path in data.read_from}
    folder.inputs |= {f"data:{path}": each for path, each in read.items() if path not in known}
    net = build_net(cfg, data.shape, data.classes).to(device)
    if dense := dense_matrices(net.model, net.weights, data.shape):
        log.info(dense)
    if net.fixed:
        log.info(
            "frozen by the model's builder (requires_grad=False), so neither covered nor "
            "trained: %d of %d parameters",
            sum(net.uncovered[name].numel() for name in net.fixed),
            sum(p.numel() for p in net.model.parameters()),
        )
    try_batch(net, data, recipe.batch_size)  # before Train compiles the net
    train = Train(
        net, data, recipe, seed=cfg.seed, folder=folder, checkpoint_seconds=cfg.checkpoint_seconds
    )
    if "sparsity" in cfg.method and (left := round((1 - cfg.sparsity) * net.total)) < len(
        net.weights
    ):
        raise UserError(
            f"sparsity={cfg.sparsity} leaves {left} of {net.total} weights for {len(net.weights)} layers. "
            f"Choose at most {1 - len(net.weights) / net.total:.6f}"
        )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with stopping_at_signals(train), train.costs.executed.set(True):
        method.run(net, train)
    loss, accuracy = train.evaluate("test")
    val = train.evaluate("val")[1] if data.sizes["val"] else None
    best = train.best
    if (
        val is not None and best.dim != net.dim
    ):  # what was evaluated while training had other coordinates
        best = Best(len(train), net.dim, val, accuracy)
    images: Json = {"shape": list(data.shape), "classes": data.classes}
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    built = {key: config[key] for key in BUILT} | {"model": own_weights(config["model"])}
    save_net(folder.path / "model.safetensors", net, built, images)
    write_masks(folder.path / "masks.npz", net)
    forms = storage(net, cfg.seed)
    return {
        "status": "done",
        "data": data.name,
        "inputs": folder.inputs,
        "device": describe_device(device),
        "test_accuracy": accuracy,
        "test_loss": loss,
        "val_accuracy": val,
        "best_val_accuracy": best.val_accuracy if data.sizes["val"] else None,
        "best_val_test_accuracy": best.test_accuracy if data.sizes["val"] else None,
        "best_val_step": best.step if data.sizes["val"] else None,
        **counts(net, train.exploration),
        "parameters": sum(p.numel() for p in net.model.parameters()),
        "collapsed": sorted(net.collapsed),
        "measures": measures(net),
        **costs(train),
        "steps": train.steps_done,
        "seconds": train.elapsed(),
        "peak_memory_bytes": peak_memory(device),
        "state_bytes": state_bytes(net),
        "storage": forms,
        "storage_bytes": smallest(forms),
        "compact_file_bytes": len(as_bytes(net, images | {"model": built["model"]})),
        "python": platform.python_version(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("dimred", "torch", "torchvision", "numpy")
        },
        "commit": git_commit(),
    }


def inputs_of(cfg: DictConfig) -> Json:
    """Fingerprints of the files and folders that the groups of a configuration name."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    paths = paths_in({group: plain[group] for group in GROUPS})
    return {key: fingerprint(path) for key, path in paths.items()}


# -- what came of it --------------------
def costs(train: Train) -> dict[str, float]:
    """FLOPs of the whole program and of the final network for one example, and as fractions of
    dense ones."""
    flops = train.costs
    training, inference = flops.steps + flops.scoring, flops.inference()
    dense = flops.dense(len(train), train.recipe.batch_size)
    return {
        "training_flops": training,
        "scoring_flops": flops.scoring,
        "training_flops_relative": relative(training, dense),
        "inference_flops": inference,
        "inference_flops_relative": relative(inference, flops.dense_forward),
    }


def relative(flops: int, dense: int) -> float:
    """As a fraction of dense ones; 1 for a model that multiplies nothing by anything."""
    return flops / dense if dense else 1.0


def measures(net: Net) -> dict[str, float]:
    """What the method reports."""
    return dict(net.reported)


def write_masks(path: Path, net: Net) -> None:
    """Which covered weights are trained: a boolean array in the shape of each, under its name."""
    arrays: dict[str, Any] = {
        n: w.trained().view(w.param.shape).cpu().numpy() for n, w in net.weights.items()
    }
    content = BytesIO()
    np.savez_compressed(content, **arrays)
    write(path, content.getvalue())


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return "cpu (1 thread)" if threads == 1 else f"cpu ({threads} threads)"


def peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU's memory, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def git_commit() -> str | None:
    """Of the repository that dimred lies in, if it does; with + if it has changes."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


# -- what can go wrong --------------------
def readable(error: Exception) -> UserError:
    """The error in one message."""
    if isinstance(error, UserError):
        return error
    text = str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or re.search(NO_MEMORY, text):
        return UserError(
            f"out of memory ({text.splitlines()[0] if text else 'no more to be had'}). Choose a smaller "
            "recipe.batch_size or model, or recipe.bf16=true; or make room and give the same command "
            "again, which goes on from the last checkpoint"
        )
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return UserError(f"{error.strerror or text}{where}. What was written before is intact")
    first = text.partition("\n")[0]  # torch adds the frames of its own stack
    return UserError(
        f"unexpected {type(error).__name__}: {first}. Repeat the command with --debug to see where"
    )


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
