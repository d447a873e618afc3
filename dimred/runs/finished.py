"""A run as Python sees it: its numbers, its network and its history."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dimred.errors import UserError, nearest
from dimred.storage.folder import read_result
from dimred.storage.masks import Masks, lacking, read_masks

if TYPE_CHECKING:
    from torch import nn

    from dimred.net import Net


@dataclass(frozen=True, repr=False)
class Result:
    """What a run has left: every number of its result.json is an attribute, as
    `result.test_accuracy`.

    folder: of the run, with the files that docs/results.md describes
    json: the whole of result.json; json["model"] is the model's name, `model()` the model
    """

    folder: Path
    json: Mapping[str, Any] = field(hash=False)
    # code that `net` may run beside dimred's own: of these targets, or any
    _targets: Collection[str] = field(default=(), hash=False, compare=False)
    _trust: bool = field(default=False, hash=False, compare=False)

    def __getattr__(self, name: str) -> Any:
        numbers = self.__dict__.get("json", {})  # there is none yet while a copy is made
        if name in numbers:
            return numbers[name]
        raise AttributeError(f"the result has no {name!r}. {nearest(name, numbers)}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.json})

    def __repr__(self) -> str:
        if self.status != "done":
            return f"<Result of {self.folder.name}: {self.status}, {self.reason}>"
        return f"<Result of {self.folder.name}: {100 * self.test_accuracy:.2f} % test accuracy>"

    @property
    def history(self) -> list[dict[str, Any]]:
        """A row per epoch (loss, accuracies, FLOPs so far, ...): `pandas.DataFrame(r.history)`."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def masks(self) -> Masks:
        """Which weights are trained: a boolean array of numpy per covered weight, by its name."""
        return read_masks(self.folder)

    def net(self) -> Net:
        """The trained model with its coordinates, on the CPU."""
        from dimred.runs.nets import load_net

        return load_net(self.folder, self._trust, self._targets)

    def model(self) -> nn.Module:
        """The trained model as a plain nn.Module in evaluation mode: pruned weights are zeros, and
        every parameter that its builder did not freeze can be trained on."""
        from dimred.runs.nets import plain_model

        net = self.net()
        model = plain_model(net).eval()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in net.fixed)
        return model


def load(run: str | PathLike[str], trust: bool = False) -> Result:
    """The result of a finished run, by its folder. UserError if there is none.

    trust: let `net` and `model` run the code of a model that is not dimred's"""
    folder = Path(run).expanduser().absolute()
    path = folder / "result.json"
    if not path.exists():
        raise UserError(f"no result.json in {run}: {lacking(folder)}")
    result = read_result(path)
    if result["status"] != "done":
        raise UserError(f"{run} has failed ({result.get('reason')}). Train it again")
    return Result(folder, result, _trust=trust)
