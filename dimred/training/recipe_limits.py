"""Which settings of a recipe exclude each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from dimred.errors import require

if TYPE_CHECKING:
    from dimred.training.recipe import Recipe


class Limit(NamedTuple):
    """holds: whether the recipe keeps to it. key: the setting that does not. allowed: what would
    be."""

    holds: bool
    key: str
    allowed: str


def require_consistent(recipe: Recipe) -> None:
    """UserError for settings that exclude each other."""
    for limits in (of_numbers, of_steps, of_compiled_steps, of_what_is_skipped, of_theta):
        for limit in limits(recipe):
            require(limit.holds, f"recipe.{limit.key}", getattr(recipe, limit.key), limit.allowed)


def of_numbers(recipe: Recipe) -> Iterator[Limit]:
    yield Limit(not recipe.nesterov or recipe.momentum > 0, "nesterov", "false where momentum is 0")
    yield Limit(
        recipe.schedule != "one_cycle" or recipe.warmup > 0,
        "warmup",
        "above 0 with recipe.schedule=one_cycle, such as 0.3: the part of the cycle that rises",
    )
    yield Limit(
        recipe.accumulate <= recipe.batch_size,
        "accumulate",
        f"at most recipe.batch_size={recipe.batch_size}, which is computed in so many parts",
    )


def of_steps(recipe: Recipe) -> Iterator[Limit]:
    yield Limit(
        not (recipe.bf16 and recipe.fp16),
        "fp16",
        "false with recipe.bf16=true: there is one number format; choose one of the two",
    )
    yield Limit(
        not recipe.fp16 or recipe.capture is not True,
        "capture",
        "auto or false with recipe.fp16=true: gradients decide whether a step is skipped",
    )


def of_compiled_steps(recipe: Recipe) -> Iterator[Limit]:
    yield Limit(
        not (recipe.compile and recipe.sync_batchnorm),
        "sync_batchnorm",
        "false with recipe.compile=true: compiled code does not wait for other processes",
    )
    for key in ("cache_frozen_mb", "cache_frozen_disk_mb"):
        yield Limit(
            not (recipe.compile and getattr(recipe, key)),
            key,
            "0 with recipe.compile=true: a compiled model computes all of its layers",
        )
    yield Limit(
        not (recipe.compile and recipe.skip_removed_channels),
        "skip_removed_channels",
        "false with recipe.compile=true: a compiled model computes all of its channels",
    )


def of_what_is_skipped(recipe: Recipe) -> Iterator[Limit]:
    for key in ("cache_frozen_mb", "cache_frozen_disk_mb"):
        yield Limit(
            not (recipe.mixes and getattr(recipe, key)),
            key,
            "0 with recipe.mixup or recipe.cutmix: mixed images differ in every epoch",
        )
    yield Limit(
        recipe.arithmetic == "dense" or not recipe.skip_removed_channels,
        "skip_removed_channels",
        f"false with recipe.arithmetic={recipe.arithmetic}: the remaining channels are dense",
    )


def of_theta(recipe: Recipe) -> Iterator[Limit]:
    """For what needs dense weights that stay where they are."""
    needs = {
        "compile=true": recipe.compile,
        "capture=true": recipe.capture is True,
        f"arithmetic={recipe.arithmetic}": recipe.arithmetic != "dense",
        f"cache_frozen_mb={recipe.cache_frozen_mb}": recipe.cache_frozen_mb > 0,
        f"cache_frozen_disk_mb={recipe.cache_frozen_disk_mb}": recipe.cache_frozen_disk_mb > 0,
        "skip_removed_channels=true": recipe.skip_removed_channels,
    }
    for setting, is_so in needs.items():
        yield Limit(
            not is_so or recipe.theta == "kept",
            "theta",
            f"kept with recipe.{setting}, which needs dense weights that stay in memory",
        )
