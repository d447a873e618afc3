"""The same bits on a GPU: captured and eager steps, two runs, a run that was killed and resumed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from dimred.conformance import NOT_EXAMINED, Make
from dimred.conformance.observe import Crash, Trace, difference, run
from dimred.errors import UserError
from dimred.runs.config.composition import composed
from dimred.runs.config.files import names
from dimred.storage.folder import RunFolder
from dimred.training.group import Group

DEVICE = "cuda"
KINDS = ("conv_norm", "mlp", "residual")
OPTIONS: Mapping[str, dict[str, Any]] = {
    "sgd": {},
    "adam": {"optimizer": "adam"},
    "bf16": {"bf16": True},
    "fp16": {"fp16": True},  # never captured
    "clip, smoothing": {"clip": 1.0, "label_smoothing": 0.1},
    "cosine": {"schedule": "cosine", "warmup": 0.2},
    "micro-batches": {"accumulate": 4},
    "average": {"ema": 0.9},
    "mixed": {"mixup": 0.2, "cutmix": 1.0},
}
IN_GROUPS = ("adam", "fp16", "micro-batches")
BASES = ("power", "layer", "group", "network")
EAGER, CAPTURED = {"capture": False}, {"capture": "auto"}
REWRITTEN = {"capture": False, "theta": "rewritten"}


def made(method: str, *overrides: str) -> Make:
    return Make(method, composed([f"method={method}", *overrides]))


def trained(make: Make, kind: str, how: Mapping[str, Any]) -> Trace:
    return run(make(), kind, make.basis(), device=DEVICE, **{"steps": 24, **how}).trace


def compared(
    label: str, make: Make, other: Mapping[str, Any] = CAPTURED, **how: Any
) -> dict[str, str]:
    """Train eagerly, and in another way; what differs, by the label. Empty if nothing does."""
    for kind in KINDS:
        try:
            eager = trained(make, kind, {**how, **EAGER})
        except UserError:
            continue
        again = trained(make, kind, {**how, **other})
        name = difference(eager.state, again.state)
        reason = f" ({again.reason})" if again.reason else ""
        verdict = f"DIFFERS in {name}" if name else "same"
        count = f"{again.captured:3} of {len(again.counts):3} captured{reason}"
        print(f"{label:34} {kind:10} {count}, {verdict}", flush=True)
        return {label: name} if name else {}
    print(f"{label:34} trains none of the nets")
    return {}


def bits() -> dict[str, Any]:
    """Every method on a small net: captured steps against eager ones."""
    wrong: dict[str, str] = {}
    for method in names("method"):
        if method not in NOT_EXAMINED:
            wrong |= compared(method, made(method))
    for option, values in OPTIONS.items():
        for method in ("dense", "rigl", "str"):
            wrong |= compared(f"{method}, {option}", made(method), **values)
    for basis in BASES:
        wrong |= compared(f"snip, basis={basis}", made("snip", f"basis={basis}"))
    for method in ("freezenet", "rigl", "str"):
        wrong |= compared(f"{method}, theta=rewritten", made(method), REWRITTEN)
    return {"wrong": [*wrong]}


def resume() -> dict[str, Any]:
    """Trainings that end in a crash and are resumed: the same bits as without."""
    wrong = []
    for method in ("rigl", "imp", "freezenet", "str", "gmp", "granet"):
        make, how = made(method), {"ema": 0.9}
        whole = trained(make, "conv_norm", how)
        for crash in (5, 11, 23):
            with tempfile.TemporaryDirectory() as path:
                try:
                    with RunFolder(Path(path)) as folder:
                        trained(make, "conv_norm", {**how, "folder": folder, "crash": crash})
                except Crash:
                    pass
                with RunFolder(Path(path)) as folder:
                    again = trained(make, "conv_norm", {**how, "folder": folder})
            if name := difference(whole.state, again.state):
                wrong.append(f"{method} at {crash}: {name}")
    return {"wrong": wrong}


def ranks() -> dict[str, Any]:
    """A group of one process: gradients go through NCCL between the graphs of a step."""
    backend = "cpu:gloo,cuda:nccl" if DEVICE == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrong: dict[str, str] = {}
        for method in ("dense", "rigl", "str"):
            for option in IN_GROUPS:
                label, values = f"{method}, {option}", OPTIONS[option]
                wrong |= compared(label, made(method), ranks=Group(), **values)
    finally:
        dist.destroy_process_group()
    return {"wrong": [*wrong]}
