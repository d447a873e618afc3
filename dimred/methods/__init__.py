"""Methods: programs that choose the coordinates of a net and train them.

A method is a frozen dataclass with a `run`. Its fields are its hyper-parameters: their annotations
give the allowed ranges (dimred/fields), and conf/method/NAME.yaml lists their values. Its docstring
has three parts: one sentence, the equation, the source (dimred/runs/config/docstrings.py).

Methods are found by the `_target_` of their YAML files: `from dimred.methods import RigL` works for
every class that a file in conf/method names.
"""

from __future__ import annotations

import importlib
from typing import Any

from dimred.runs.config.files import targets


def __getattr__(name: str) -> Any:
    for target in targets("method"):
        module, _, found = target.rpartition(".")
        if found == name:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"no method of dimred is named {name!r}")


def __dir__() -> list[str]:
    return sorted({target.rpartition(".")[2] for target in targets("method")})
