"""A run: from a composed configuration to a result.

A run is a pure function of its description, memoised on disk: the name of its folder ends in a
digest of the description (identity.py), so the same command finds the folder again, finished or
interrupted."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from dimred.data.base import Data
from dimred.errors import Interrupted, ProcessLost, RunIsBusy, UserError, counted
from dimred.files import Json
from dimred.methods.base import Method
from dimred.net import Net
from dimred.net.layers import dense_matrices
from dimred.runs.build import build, own_weights
from dimred.runs.config.files import CHOICES, GROUPS, OBJECTIVE, TRACKER, Choices
from dimred.runs.config.schema import checked
from dimred.runs.environment import find_device, reset_peak_memory
from dimred.runs.failures import readable
from dimred.runs.identity import describe, folder_of
from dimred.runs.inputs import fingerprint, paths_in, require_same
from dimred.runs.nets import BUILT, build_net, save_net
from dimred.runs.processes import folder_of_rank, join
from dimred.runs.result import result_of
from dimred.runs.signals import stopping_at_signals
from dimred.runs.trial import try_batch
from dimred.storage.folder import RunFolder
from dimred.storage.masks import write_masks
from dimred.trackers.observer import Tracked, Trackers, ending
from dimred.training.loop import Train
from dimred.training.ranks import Ranks
from dimred.training.recipe import Recipe

log = logging.getLogger("dimred")


def run(
    cfg: DictConfig,
    choices: Choices,
    explicit: Collection[str] = (),
    command: Sequence[str] | None = None,
    only_finished: bool = False,
) -> Json:
    """Compute a run, or what is left of it, or nothing if it is finished; its result. UserError on
    whatever is wrong.

    explicit: the keys that the user typed; a warning names those that the method does not use
    command: for result.json, by default that of the process
    only_finished: UserError if there is anything left to compute"""
    cfg = checked(cfg)
    tracked = cfg.pop(TRACKER)  # this and the objective are no part of what the run is
    del cfg[OBJECTIVE]
    warn_of_unused(cfg, choices, explicit)
    method, recipe = build(cfg.method, "method"), build(cfg.recipe, "recipe")
    device = find_device(cfg.device)
    path = folder_of(cfg, choices, describe(cfg))
    config: Json = {CHOICES: dict(choices), **plain(cfg)}
    digest = path.name.rpartition("-")[2]
    ranks = join(device)
    ranks.require_same({"configuration": int(digest, 16)}, "another")
    with folder_of_rank(path, ranks) as folder:
        ranks.wait()  # until rank 0 holds the folder
        trackers = trackers_of(tracked if folder.writes else {}, path)
        finished = folder.result()
        folder.inputs = inputs_of(cfg)
        # also of a finished run: its result is of the inputs as they were
        require_same(folder.recorded_inputs(finished), folder.inputs, path)
        if finished and finished["status"] == "done":
            log.info("finished already: %s", path)
            # a process that was killed after it wrote the result has left one
            folder.forget_checkpoint()
            trackers.complete(config, finished)
            return finished
        if only_finished:
            raise UserError(f"{path} is not finished. Repeat the command to resume it")
        log_file = logging_to(path / "log.txt") if folder.writes else nullcontext()
        with log_file, ending(trackers):
            about: Json = {
                **choices,
                "sparsity": cfg.sparsity if "sparsity" in cfg.method else None,
                "seed": cfg.seed,
                "folder": str(path),
                "digest": digest,
                "command": [*(command or sys.argv)],
            }
            with recording_its_end(folder, about):
                train = prepared(cfg, recipe, device, folder, ranks)
                folder.write_config(OmegaConf.to_yaml(config))
                trackers.begin(config)
                train.observers += [trackers] if trackers.all else []
                result = about | compute(cfg, method, train, folder)
            folder.write_result(result)
            trackers.finish(result)
        folder.forget_checkpoint()
    return result


@contextmanager
def recording_its_end(folder: RunFolder, about: Json) -> Iterator[None]:
    """Write down why the block fails or is interrupted. Any failure becomes a UserError.

    about: what result.json says besides"""
    try:
        yield
    except RunIsBusy:  # taken over by another process: write nothing
        raise
    except Interrupted as stop:
        log.info("%s", stop)
        raise
    except ProcessLost as lost:
        if folder.has_config():
            log.debug("%s", lost)  # for log.txt: the command line prints the error
        raise
    except Exception as error:
        message = readable(error)
        # Without a config.yaml the run has not begun: a mistake leaves no folder.
        if folder.has_config():
            log.debug("%s", traceback.format_exc())
            folder.write_result({**about, "status": "failed", "reason": str(message)})
        raise message from error


def trackers_of(settings: Mapping[Any, DictConfig], folder: Path) -> Trackers:
    """The trackers of a run, not begun."""
    found = []
    for key, each in settings.items():
        name = str(key)
        make = partial(build, each, f"{TRACKER}.{name}")
        record = folder / "trackers" / f"{name}.json"
        found.append(Tracked(name, plain(each), make, record))
    return Trackers(found, folder)


def prepared(
    cfg: DictConfig, recipe: Recipe, device: torch.device, folder: RunFolder, ranks: Ranks
) -> Train:
    """Build the data set and the net and try them on a batch. Writes no file of the run."""
    ranks.require_possible(recipe)  # before a batch has a share for each of them
    with ranks.first_before_others():  # it may download
        data = build(cfg.dataset, "dataset").to(device)
    add_inputs(folder, data.read_from)
    net = build_net(cfg, data.shape, data.classes).to(device)
    log_what_is_not_covered(net, data)
    # before Train compiles the net
    try_batch(net, data, recipe.batch_size // ranks.share.size)
    return Train(
        net,
        data,
        recipe,
        seed=cfg.seed,
        folder=folder,
        checkpoint_seconds=cfg.checkpoint_seconds,
        ranks=ranks,
    )


def compute(cfg: DictConfig, method: Method, train: Train, folder: RunFolder) -> Json:
    """Train the net, write it and its masks; the result."""
    net = train.net
    if "sparsity" in cfg.method:
        require_weights_for_all_layers(net, cfg.sparsity)
    reset_peak_memory(train.device)
    train.replay.start_clock()
    with stopping_at_signals(train.stop), train.costs.executed.set(True):
        method.run(net, train)
    return save(cfg, train, folder)


def save(cfg: DictConfig, train: Train, folder: RunFolder) -> Json:
    """Write the trained net and its masks; the result."""
    net, data = train.net, train.data
    folder.require_held()
    images: Json = {"shape": list(data.shape), "classes": data.classes}
    config = plain(cfg)
    built = {key: config[key] for key in BUILT} | {"model": own_weights(config["model"])}
    if folder.writes:
        save_net(folder.path / "model.safetensors", net, built, images)
        masks = {name: w.trained().view(w.param.shape) for name, w in net.weights.items()}
        write_masks(
            folder.path / "masks.npz", {name: mask.cpu().numpy() for name, mask in masks.items()}
        )
    return result_of(train, built["model"], images, folder.inputs)


# -- before training --------------------
def warn_of_unused(cfg: DictConfig, choices: Choices, explicit: Collection[str]) -> None:
    """Name the keys that the user typed and the method does not have."""
    for key in {"sparsity", "allocation"} & set(explicit) - set(cfg.method):
        log.warning(
            "method=%s has no %s: %s=%s is not used",
            choices["method"],
            key,
            key,
            choices.get(key) or cfg[key],
        )


def inputs_of(cfg: DictConfig) -> Json:
    """Fingerprints of the files and folders that the groups of a configuration name."""
    values = plain(cfg)
    paths = paths_in({group: values[group] for group in GROUPS})
    return {key: fingerprint(path) for key, path in paths.items()}


def add_inputs(folder: RunFolder, paths: Iterable[Path]) -> None:
    """Add fingerprints of what the data set reads besides what its configuration names."""
    known = {each["path"] for each in folder.inputs.values()}
    for path in paths:
        name = str(path.resolve())
        if name not in known:
            folder.inputs[f"data:{name}"] = fingerprint(path)


def log_what_is_not_covered(net: Net, data: Data) -> None:
    """Tell which weights the method cannot choose from."""
    if dense := dense_matrices(net.model, net.weights, data.shape):
        log.info(dense)
    if net.fixed:
        log.info(
            "frozen by the model's builder (requires_grad=False), so neither covered nor "
            "trained: %d of %d parameters",
            sum(net.uncovered[name].numel() for name in net.fixed),
            sum(p.numel() for p in net.model.parameters()),
        )


def require_weights_for_all_layers(net: Net, sparsity: float) -> None:
    """UserError if the sparsity leaves fewer weights than there are layers."""
    left, layers = round((1 - sparsity) * net.total), len(net.weights)
    if left < layers:
        raise UserError(
            f"sparsity={sparsity} leaves {left} of {net.total} weights for "
            f"{counted(layers, 'layer')}. Choose at most {1 - layers / net.total:.6f}"
        )


def plain(cfg: DictConfig) -> Json:
    """The values of a configuration."""
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    return values


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write log messages of the block to a file, too; without messages there is no file."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
