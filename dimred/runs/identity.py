"""A run's identity: what determines its result, and the folder that is named by it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from dimred.files import Json, folder_to_write
from dimred.runs.config.files import Choices, description
from dimred.storage.masks import content_of, read_masks


def describe(cfg: DictConfig) -> Json:
    """What determines the result of a checked configuration. A mask from another run counts by its
    content, not by its path."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    if isinstance(mask := plain["method"].get("mask"), str):
        plain["method"]["mask"] = content_of(read_masks(Path(mask).expanduser()))
    return description({str(key): value for key, value in plain.items()})


def folder_of(cfg: DictConfig, choices: Choices, description: Json) -> Path:
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:10]
    sparsity = f"-s{cfg.sparsity:g}" if "sparsity" in cfg.method else ""
    name = f"{choices['method']}{sparsity}-seed{cfg.seed}-{digest}"
    return (
        folder_to_write(cfg.outputs, "outputs")
        / "runs"
        / choices["dataset"]
        / choices["model"]
        / name
    )
