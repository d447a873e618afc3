"""What may be typed as KEY=VALUE, beyond what Hydra refuses: nothing that would give a run two
truths."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

from dimred.errors import UserError, require
from dimred.runs.config.composition import quoted
from dimred.runs.config.files import GROUPS, TRACKER, names, require_plain_names, unknown_name

#: what a method takes from the run, which tells it in its name and result
OF_THE_RUN = re.compile(r"method\.((sparsity|allocation)(\..*)?)")

#: keys of Hydra's for what dimred decides itself: where a run works, and what is written there
DECIDED = "hydra.run.dir", "hydra.sweep.subdir", "hydra.output_subdir", "hydra.job.chdir"


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
        # without a value it belongs to an option: --cfg hydra
        if "=" in word and any(f"{decided}.".startswith(f"{key}.") for decided in DECIDED):
            raise UserError(
                f"{word} is not allowed: dimred names the folders of runs, "
                "outputs/DATA/MODEL/METHOD-... Choose another folder for all of them: outputs=DIR"
            )
        if key == TRACKER and value == "null":
            raise UserError(f"{word} is not allowed. Write {TRACKER}=none")
        if key in (*GROUPS, TRACKER):
            require_words(key, value)
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
        if key in GROUPS and (value.startswith(("[", "{")) or value == "null"):
            require_plain_names({key: None if value == "null" else value})


def require_words(group: str, value: str) -> None:
    """UserError for a number or a truth value where the name of a file is to be: Hydra would raise
    a ValueError."""
    for name in value.split(","):
        if name.lower() in ("true", "false") or is_number(name):
            raise UserError(unknown_name(group, name, names(group)))


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# -- from Python --------------------
def from_values(values: Mapping[str, Any]) -> list[str]:
    """Python values as the command line writes them: {"recipe": {"epochs": 2}} is recipe.epochs=2.
    UserError for a key that is given twice, or a value that no configuration holds."""
    words: dict[str, str] = {}
    for key, value in flat(values):
        require(key not in words, key, value, "given once")
        words[key] = as_word(key, value)
    return [f"{key}={word}" for key, word in words.items()]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """{"recipe": {"epochs": 2}} as recipe.epochs, 2. UserError for a key that the command line
    would not read as one."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if not re.fullmatch(r"\w+(\.\w+)*", key) or key.partition(".")[0] == "hydra":
            raise UserError(
                f"{key!r} is no key of a configuration. Write recipe={{'epochs': 2}} or "
                "**{'recipe.epochs': 2}; `dimred train --help` lists the keys"
            )
        if isinstance(value, Mapping):
            yield from flat(value, f"{key}.")
        else:
            yield key, value


def as_word(key: str, value: Any) -> str:
    """A value in Hydra's grammar: None is null, (0.5, 0.75) is [0.5,0.75]."""
    value = plain(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, PathLike)):
        text = str(value)
        is_name = re.fullmatch(r"[A-Za-z_][\w.-]*", text) and text.lower() not in NOT_NAMES
        return text if is_name else quoted(text, always=True)
    if isinstance(value, Sequence):
        return f"[{','.join(as_word(key, each) for each in value)}]"
    allowed = "a number, a string, None, True, False, or a list of these"
    raise UserError(f"{key}={value!r} is not allowed. It must be {allowed}.")


def plain(value: Any) -> Any:
    """Numbers and arrays of numpy and torch as Python's own."""
    return value.tolist() if hasattr(value, "tolist") else value


#: words that Hydra reads as something else than a string
NOT_NAMES = ("null", "none", "true", "false", "inf", "nan")
