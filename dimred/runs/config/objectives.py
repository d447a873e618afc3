"""The objectives of a search: numbers of result.json that a sweeper maximises or minimises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from dimred.errors import UserError, as_typed, counted, nearest

#: the numbers of result.json
NUMBERS = (
    *("val_accuracy", "best_val_accuracy", "best_val_step", "best_val_test_accuracy"),
    *("ema_val_accuracy", "ema_best_val_accuracy", "ema_best_val_step"),
    *("ema_best_val_test_accuracy",),
    *("ema_test_accuracy", "ema_test_loss"),
    *("test_accuracy", "test_loss", "sparsity", "seed"),
    *("dim", "total", "nonzero", "density", "explored", "trained_ever", "trained_to_the_end"),
    *("parameters", "trained_parameters"),
    *("training_flops", "training_flops_relative", "scoring_flops"),
    *("inference_flops", "inference_flops_relative"),
    *("storage_bytes", "compact_file_bytes", "state_bytes", "peak_memory_bytes"),
    *("steps", "captured_steps", "seconds", "step_seconds"),
)

#: where each sweeper says its direction: the key, and how it writes that it maximises or minimises
DIRECTIONS = (
    ("direction", "maximize", "minimize"),  # optuna
    ("optim.maximize", "true", "False"),  # nevergrad
    ("ax_config.experiment.minimize", "false", "True"),  # ax
)


#: what a sweeper gets of a run: its objective, or several
Value = float | list[float] | None


def objectives(value: Any) -> list[str]:
    """The names in `objective=`. UserError for one that no result has."""
    names = [*value] if isinstance(value, (list, ListConfig)) else [value]
    for name in names:
        if name not in NUMBERS:
            shown = str(as_typed(name))
            raise UserError(f"unknown objective {shown!r}. {nearest(shown, NUMBERS)}")
    if not names:
        raise UserError("objective=[] names no number of result.json. Give it one or more")
    return names


def searches(sweeper: DictConfig) -> bool:
    """Whether the sweeper decides as it goes."""
    return not sweeper._target_.endswith(".BasicSweeper")


def directions(sweeper: DictConfig) -> list[bool]:
    """Whether each objective is maximised; empty if the sweeper is not known."""
    for key, _, minimise in DIRECTIONS:
        found = OmegaConf.select(sweeper, key)
        if found is not None:
            each = found if isinstance(found, ListConfig) else [found]
            return [minimise not in str(one) for one in each]
    return []


def require_directions(sweeper: DictConfig, names: Sequence[str]) -> None:
    """UserError unless there is a direction for every objective, and accuracies are maximised:
    sweepers minimise unless told otherwise."""
    found = directions(sweeper)
    if found and len(found) != len(names):
        raise UserError(
            f"the search has {counted(len(names), 'objective')} ({', '.join(names)}) and "
            f"{counted(len(found), 'direction')}. Give every objective its direction, such as "
            "'hydra.sweeper.direction=[maximize,minimize]'"
        )
    for name, maximised in zip(names, found, strict=False):
        if name.endswith("accuracy") and not maximised:
            raise UserError(f"the sweeper would look for the lowest {name}. {advice(sweeper)}")


def advice(sweeper: DictConfig) -> str:
    """How to maximise."""
    key, value = next(
        (key, value) for key, value, _ in DIRECTIONS if OmegaConf.select(sweeper, key) is not None
    )
    if isinstance(OmegaConf.select(sweeper, key), ListConfig):
        return f"Write {value} in its place in hydra.sweeper.{key}"
    return f"Add hydra.sweeper.{key}={value}"


def value_of(outcome: Mapping[str, Any], names: Sequence[str], sweeper: DictConfig) -> Value:
    """The objectives of a run, for the sweeper. For one that searches they are the worst there are
    if the run failed, as such sweepers end at what is no number."""
    if outcome["status"] == "done":
        values: list[Any] = [outcome.get(name) for name in names]  # an older result may have none
        if searches(sweeper) and None in values:
            raise UserError(missing(names[values.index(None)]))
    elif searches(sweeper):
        # no number of a result is negative
        values = [0.0 if maximised else float("inf") for maximised in directions(sweeper)]
        values = values or [0.0 for _ in names]
    else:
        return None
    return values[0] if len(values) == 1 else values


def missing(name: str) -> str:
    """Why a result may have no value of a number, and what to do."""
    if "val_" in name:
        return (
            f"a search compares {name}, and there is no validation split. Set "
            "dataset.val_fraction to more than 0, or add a folder of images for validation"
        )
    return f"a search compares {name}, and the method of a run has none. Choose another objective"
