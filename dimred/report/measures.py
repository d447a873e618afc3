"""The measures that a table can show, and how they are printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Result = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """A number of a result, in the unit that is printed; None if the result lacks it, as those of
    older versions may.

    better: +1 if more is better, -1 if less is better, 0 if neither
    """

    label: str
    value: Callable[[Result], float | None]
    better: int
    digits: int | None = 2  # after the point; None: three digits and a prefix (k, M, ...)
    unit: str = ""
    interval: bool = False  # show an interval and the number of seeds

    def text(self, mean: float, std: float | None = None) -> str:
        """12.30 ± 0.25, or 12.30 if there is no spread."""
        if self.digits is None:
            factor, prefix = prefixed(mean)
            digits = max(0, 3 - len(str(int(abs(mean) / factor))))
        else:
            factor, prefix, digits = 1.0, "", self.digits
        spread = f"{(std or 0.0) / factor:.{digits}f}"
        seen = f" ± {spread}" if (self.interval and std is not None) or float(spread) else ""
        unit = f" {prefix}{self.unit}".rstrip()
        return f"{mean / factor:,.{digits}f}{seen}{unit}"

    def signed(self, difference: float) -> str:
        digits = 2 if self.digits is None else self.digits
        return f"{difference:+,.{digits}f}".replace("-", "−")


def prefixed(value: float) -> tuple[float, str]:
    for power, prefix in enumerate(("", "k", "M", "G", "T", "P", "E")):
        if abs(value) < 1000 ** (power + 1) or prefix == "E":
            return 1000.0**power, prefix
    raise AssertionError


def is_number(value: Any) -> bool:
    """False for booleans, infinity and nan."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e100


def number(result: Mapping[str, Any], name: str) -> float | None:
    """None if the value is missing or not a number."""
    value = result.get(name)
    return value if is_number(value) else None


def not_numbers(result: Result) -> list[str]:
    """The keys of numbers that have another value, with this value."""
    given = [name for name in (*MEASURES, "total") if result.get(name) is not None]
    wrong = [name for name in given if number(result, name) is None]
    return [f"{name}={str(result[name])[:20]}" for name in wrong]


def key(name: str, factor: float = 1.0) -> Callable[[Result], float | None]:
    def value_of(result: Result) -> float | None:
        value = number(result, name)
        return None if value is None else factor * value

    return value_of


def left_to_cut(result: Result) -> float:
    """The fraction of the weights to be pruned that the method itself had not pruned; 0 if
    unknown."""
    measures = result.get("measures")
    return (number(measures, "left_to_cut") or 0.0) if isinstance(measures, dict) else 0.0


def error(result: Result) -> float | None:
    return None if (value := number(result, "test_accuracy")) is None else 100 * (1 - value)


def compression(result: Result) -> float | None:
    total, dim = number(result, "total"), number(result, "dim")
    return total / dim if total and dim else None


def inference(images: int) -> Callable[[Result], float | None]:
    """Milliseconds of inference with so many images at once, by the arithmetic of the run."""

    def value_of(result: Result) -> float | None:
        measured = result.get("inference_seconds")
        of_size = measured.get(str(images)) if isinstance(measured, dict) else None
        if not isinstance(of_size, dict):
            return None
        value = number(of_size, str(result.get("arithmetic")))
        return None if value is None else 1000 * value

    return value_of


MEASURES = {
    "test_accuracy": Measure("test accuracy %", key("test_accuracy", 100), +1, interval=True),
    "test_error": Measure("test error %", error, -1, interval=True),
    "best_val_test_accuracy": Measure(
        "test accuracy % at the best validation epoch",
        key("best_val_test_accuracy", 100),
        +1,
        interval=True,
    ),
    "ema_test_accuracy": Measure(
        "test accuracy % of averaged weights", key("ema_test_accuracy", 100), +1, interval=True
    ),
    "val_accuracy": Measure("validation accuracy %", key("val_accuracy", 100), +1, interval=True),
    "dim": Measure("dim", key("dim"), 0, 0),
    "trained_ever": Measure("weights ever trained", key("trained_ever"), 0, 0),
    "trained_to_the_end": Measure("weights trained to the end", key("trained_to_the_end"), 0, 0),
    "nonzero": Measure("nonzero weights", key("nonzero"), 0, 0),
    "density": Measure("density", key("density"), 0, 4),
    "compression": Measure("weights / dim", compression, 0, 1),
    "trained_parameters": Measure("trained parameters", key("trained_parameters"), 0, 0),
    "storage_bytes": Measure("storage", key("storage_bytes"), -1, None, "B"),
    "compact_file_bytes": Measure("compact file", key("compact_file_bytes"), -1, None, "B"),
    "training_flops": Measure("training FLOPs", key("training_flops"), -1, None),
    "training_flops_relative": Measure("of dense training", key("training_flops_relative"), -1, 3),
    "inference_flops": Measure("inference FLOPs", key("inference_flops"), -1, None),
    "inference_flops_relative": Measure(
        "of dense inference", key("inference_flops_relative"), -1, 3
    ),
    "steps": Measure("steps", key("steps"), 0, 0),
    "seconds": Measure("seconds", key("seconds"), 0, 1),
    "step_seconds": Measure("ms a training step", key("step_seconds", 1000), 0, 2),
    "inference_ms_1": Measure("ms inference, 1 image", inference(1), 0, 2),
    "inference_ms_128": Measure("ms inference, 128 images", inference(128), 0, 2),
}
