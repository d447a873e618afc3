"""What may be typed as KEY=VALUE, beyond what Hydra refuses: nothing that would give a run two
truths."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dimred.errors import UserError
from dimred.runs.config.files import GROUPS, require_plain_names

#: what a method takes from the run, which tells it in its name and result
OF_THE_RUN = re.compile(r"method\.((sparsity|allocation)(\..*)?)")


def require_one_way(words: Iterable[str]) -> None:
    """UserError for a KEY=VALUE that sets what another key says, or chooses what no file of a group
    names."""
    for word in words:
        key, _, value = word.lstrip("+~").partition("=")
        parts = re.split("[.@]", key)
        group = next((part for part in reversed(parts) if part in GROUPS), None)
        if key == "hydra.sweeper.params":  # OmegaConf cannot replace its null
            raise UserError(
                f"{word} is not allowed. Type the values of a sweep by their own keys: -m KEY=A,B"
            )
        if group is None or parts[0] == "hydra":
            continue
        if "@" in key:
            raise UserError(
                f"{word} is not allowed: a group stays in its place. Write {parts[0]}={value}"
            )
        if key.endswith("._target_"):
            raise UserError(
                f"{word} is not allowed: a run is named by its files. Choose one, {group}=NAME, or "
                f"write your own: DIR/{group}/NAME.yaml with _target_: {value}, and --config-dir "
                "DIR"
            )
        if found := OF_THE_RUN.fullmatch(key):
            raise UserError(
                f"{word} is not allowed: it is the {found[2]} of the run. Write {found[1]}={value}"
            )
        if key in GROUPS and (value.startswith("[") or value == "null"):
            require_plain_names({key: None if value == "null" else value})
