"""The same bits on a GPU: captured and eager steps, two runs, a run that was killed and resumed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dimred.conformance import NOT_EXAMINED, Make
from dimred.conformance.observe import Crash, Trace, difference, run
from dimred.errors import UserError
from dimred.runs.config.composition import composed
from dimred.runs.config.files import names
from dimred.storage.folder import RunFolder

KINDS = ("conv_norm", "mlp", "residual")
OPTIONS: Mapping[str, dict[str, Any]] = {
    "sgd": {},
    "adam": {"optimizer": "adam"},
    "bf16": {"bf16": True},
    "clip, smoothing": {"clip": 1.0, "label_smoothing": 0.1},
    "cosine": {"schedule": "cosine", "warmup": 0.2},
}
BASES = ("power", "layer", "group", "network")


def made(method: str, *overrides: str) -> Make:
    return Make(method, composed([f"method={method}", *overrides]))


def trained(make: Make, kind: str, capture: Any, **how: Any) -> Trace:
    return run(make(), kind, make.basis(), device="cuda", capture=capture, **how).trace


def compared(label: str, make: Make, **how: Any) -> str:
    """Train captured and eagerly; what differs, empty if nothing."""
    for kind in KINDS:
        try:
            eager = trained(make, kind, False, **how)
        except UserError:
            continue
        captured = trained(make, kind, "auto", **how)
        name = difference(eager.state, captured.state)
        reason = f" ({captured.reason})" if captured.reason else ""
        verdict = f"DIFFERS in {name}" if name else "same"
        count = f"{captured.captured:3} of {len(captured.counts):3} captured{reason}"
        print(f"{label:34} {kind:10} {count}, {verdict}", flush=True)
        return name
    print(f"{label:34} trains none of the nets")
    return ""


def bits() -> dict[str, Any]:
    """Every method on a small net: captured steps against eager ones."""
    different = {}
    for method in names("method"):
        if method not in NOT_EXAMINED:
            different[method] = compared(method, made(method), steps=24)
    for option, values in OPTIONS.items():
        for method in ("dense", "rigl", "str"):
            label = f"{method}, {option}"
            different[label] = compared(label, made(method), steps=24, **values)
    for basis in BASES:
        label = f"snip, basis={basis}"
        different[label] = compared(label, made("snip", f"basis={basis}"), steps=24)
    wrong = [name for name, where in different.items() if where]
    print(f"{len(different)} trainings, {len(wrong)} differ: {', '.join(wrong) or 'none'}")
    return {"trainings": len(different), "different": wrong}


def resume() -> dict[str, Any]:
    """Trainings that end in a crash and are resumed: the same bits as without."""
    wrong = []
    for method in ("dense", "rigl", "imp", "snip", "freezenet", "str", "gmp", "granet"):
        make = made(method)
        whole = trained(make, "conv_norm", "auto", steps=24)
        for crash in (5, 11, 23):
            with tempfile.TemporaryDirectory() as path:
                try:
                    with RunFolder(Path(path)) as folder:
                        trained(make, "conv_norm", "auto", steps=24, folder=folder, crash=crash)
                except Crash:
                    pass
                with RunFolder(Path(path)) as folder:
                    again = trained(make, "conv_norm", "auto", steps=24, folder=folder)
            if name := difference(whole.state, again.state):
                wrong.append(f"{method} at {crash}: {name}")
    print(f"differ: {', '.join(wrong) or 'none'}")
    return {"different": wrong}
