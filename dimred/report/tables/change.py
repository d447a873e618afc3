"""Changed settings of a published table: --scale, --seeds and KEY=VALUE. They make another table,
which its title names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dimred.errors import UserError, numbered
from dimred.report.compose import Overrides, composed, size_of

LENGTH = {"recipe.epochs", "recipe.steps"}  # one replaces the other


@dataclass(frozen=True)
class Change:
    scale: float = 1.0  # of the epochs or steps of the recipe, and of the step to rewind to
    overrides: tuple[tuple[str, str], ...] = ()
    seeds: tuple[int, ...] = ()  # if they are not the seeds of the table

    def __str__(self) -> str:
        """For titles and file names."""
        texts = [f"{name}={value}" for name, value in self.overrides]
        if self.scale != 1:
            texts.insert(0, f"recipe shortened to {self.scale:g} of its length")
        if self.seeds:
            texts.append(numbered("seed", self.seeds))
        return ", ".join(texts)

    def applied(self, overrides: Overrides) -> Overrides:
        """The overrides of a cell, changed."""
        overrides = overrides | dict(self.overrides)
        if self.scale == 1:
            return overrides
        cell = composed(overrides)
        name, size = size_of(cell["recipe"])
        length = size * self.scale
        if name == "steps":
            length = max(1, round(length))
        changed = overrides | {f"recipe.{name}": f"{length:.6g}"}
        if rewind := cell["method"].get("rewind_step"):
            changed["method.rewind_step"] = f"{round(rewind * self.scale)}"
        return changed

    def require_allowed(self, owners: Mapping[str, str]) -> None:
        """UserError if the change sets a key that tells cells apart: they would no longer be what
        their labels say. `owners`: these keys, and what sets them ("the rows")."""
        for name, value in self.overrides:
            same = {name, name.removesuffix("._target_"), name.removeprefix("method.")}
            if name in LENGTH:
                same |= LENGTH
            for key in sorted(same & owners.keys()):
                raise UserError(
                    f"{name}={value} is not allowed: {owners[key]} of the table set {key}, and "
                    "cells would not be what their labels say. Leave it out; --only REGEX chooses "
                    "cells by their name"
                )


AS_PUBLISHED = Change()
